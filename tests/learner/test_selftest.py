"""The self-test of a run's model: right packings of real architectures, and planted errors of each class."""

import time
from typing import Any

import pytest
import torch
from transformers import PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from rlframe.errors import ConfigError
from rlframe.learner import selftest
from rlframe.model import attention, policy
from rlframe.model.layout import Layout
from rlframe.model.scale import Scale
from rlframe.training import PACKED_ATTENTION, Packing
from tests.conftest import compose, tiny_overrides

LONGEST = 1 << 20  # beyond every window and rotary limit
ALL: list[Packing] = ["shared", "whole", "padded"]


def config_of(model_type: str, **settings: Any) -> PreTrainedConfig:
    return CONFIG_MAPPING[model_type](**settings)


def chosen(config: PreTrainedConfig, longest: int = LONGEST) -> str:
    packing, difference = next(iter(selftest.differences(config, PACKED_ATTENTION, ALL, longest).items()))
    return packing if selftest.is_right(difference) else "none"


def difference(config: PreTrainedConfig, packing: Packing, longest: int = LONGEST) -> float:
    found = selftest.differences(config, PACKED_ATTENTION, [packing], longest)[packing]
    assert not isinstance(found, str), found
    return found


@pytest.mark.parametrize(
    "model_type",
    ["llama", "qwen3", "qwen3_moe", "deepseek_v3", "gemma2", "gemma3_text", "gpt_oss", "granite", "cohere2", "minicpm3",
     "nanochat", "phi", "gpt2", "mistral"],
)  # fmt: skip
def test_softmax_attention_shares_prefixes_with_any_head(model_type):
    assert chosen(config_of(model_type)) == "shared"


@pytest.mark.parametrize(
    "model_type, settings",
    [
        ("lfm2", {"layer_types": ["conv", "full_attention"] * 4, "num_hidden_layers": 8}),
        ("qwen3_next", {}),
        ("nemotron_h", {}),
        ("granitemoehybrid", {}),
        ("llama4_text", {}),
    ],
)
def test_layers_that_know_no_boundaries_get_padded_rows(model_type, settings):
    assert chosen(config_of(model_type, **settings)) == "padded"


@pytest.mark.parametrize("model_type", ["bert", "modernbert-decoder", "xlnet"])
def test_a_model_whose_logits_nobody_else_computes_is_refused(model_type):
    assert chosen(config_of(model_type)) == "none"


def test_a_leaked_state_is_found():
    assert difference(config_of("qwen3_next"), "whole") > 0.1


@pytest.mark.parametrize("model_type, settings", [("granite", {"logits_scaling": 8.0}), ("gemma2", {}), ("cohere", {})])
def test_a_dropped_scale_or_cap_is_found(model_type, settings, monkeypatch):
    assert difference(config_of(model_type, **settings), "shared") < 1e-4
    monkeypatch.setattr(policy, "scale_of", lambda config: Scale())
    assert difference(config_of(model_type, **settings), "shared") > 0.1


def test_a_wrong_mask_is_found(monkeypatch):
    real = attention.packed_attention

    def without_window(*arguments: Any, sliding_window: int | None = None, **keywords: Any) -> Any:
        return real(*arguments, **keywords)

    monkeypatch.setattr(attention, "packed_attention", without_window)
    assert difference(config_of("mistral", sliding_window=4096), "shared") > 0.1


def test_a_context_that_ends_a_token_early_is_found(monkeypatch):
    real = Layout.of.__func__

    def short(cls: type[Layout], sequence_ids: torch.Tensor, position_ids: torch.Tensor) -> Layout:
        layout = real(cls, sequence_ids, position_ids)
        contexts = [context[:-1] if len(context) else context for context in layout.contexts]
        return Layout(lengths=layout.lengths, contexts=contexts, until=layout.until, position_ids=layout.position_ids)

    monkeypatch.setattr(Layout, "of", classmethod(short))
    assert difference(config_of("llama"), "shared") > 0.1


def rotary(kind: str) -> PreTrainedConfig:
    """A Phi-3 with LongRoPE beyond 4,096 tokens, or a Llama with dynamic NTK scaling beyond 4,096."""
    if kind == "dynamic":
        scaling = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0}
        return config_of("llama", max_position_embeddings=4096, rope_parameters=scaling)
    factors = {"short_factor": [1.0] * 48, "long_factor": [4.0] * 48, "original_max_position_embeddings": 4096}
    return config_of("phi3", rope_parameters={"rope_type": "longrope", "rope_theta": 10_000.0, **factors})


@pytest.mark.parametrize("kind", ["longrope", "dynamic"])
def test_a_rotary_factor_by_batch_is_right_up_to_its_limit_only(kind):
    assert chosen(rotary(kind), longest=4096) == "shared"
    assert chosen(rotary(kind), longest=8192) == "none"


def test_a_small_vocabulary_is_no_reason_to_refuse():
    assert chosen(config_of("llama", vocab_size=32)) == "shared"


def test_dropout_of_a_checkpoint_is_off_in_training():
    assert difference(config_of("gpt2", resid_pdrop=0.5, attn_pdrop=0.5, embd_pdrop=0.5), "shared") < 1e-4


def test_the_test_takes_less_than_5_seconds_for_a_large_hybrid_mixture():
    config = config_of("qwen3_5_moe")
    start = time.process_time()
    assert chosen(config) == "padded"
    assert time.process_time() - start < 5


def test_a_refusal_names_model_figure_and_remedy(tiny_model, monkeypatch):
    run = compose([*tiny_overrides(tiny_model), "learner.packing=padded", "learner.attention=eager"])
    monkeypatch.setattr(policy, "scale_of", lambda config: Scale(factor=2.0))
    with pytest.raises(ConfigError) as refusal:
        selftest.choose_packing(tiny_model, run.learner, run.longest_sequence)
    text = str(refusal.value)
    assert "model.path" in text and "'llama'" in text and "padded: " in text and "nats" in text
    assert "learner.packing=auto or learner.attention=rlframe_packed" in text


def test_a_model_that_cannot_be_built_is_refused_with_the_error_once(tiny_model, monkeypatch):
    def broken(config: object, longest: int, narrow: bool) -> object:
        raise RuntimeError("no such layer\nand many more lines")

    monkeypatch.setattr(selftest, "shrunk", broken)
    run = compose(tiny_overrides(tiny_model))
    with pytest.raises(ConfigError, match=r"every packing: RuntimeError: no such layer\. No setting helps"):
        selftest.choose_packing(tiny_model, run.learner, run.longest_sequence)


def test_the_packing_of_a_run_is_the_first_right_one(tiny_model):
    run = compose(tiny_overrides(tiny_model))
    for update, wanted in (
        ({}, "shared"),
        ({"attention": "flash_attention_2"}, "whole"),
        ({"attention": "sdpa"}, "padded"),
        ({"packing": "whole"}, "whole"),
    ):
        learner = run.learner.model_copy(update=update)
        assert selftest.choose_packing(tiny_model, learner, run.longest_sequence) == wanted


def test_a_learner_on_cpus_is_tested_on_the_cpu_of_a_machine_with_gpus(tiny_model, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(policy, "scale_of", lambda config: Scale(factor=2.0))
    run = compose([*tiny_overrides(tiny_model), "learner.packing=padded"])
    with pytest.raises(ConfigError, match=r"padded: [\d.e+-]+ nats"):  # and no error of a missing GPU
        selftest.choose_packing(tiny_model, run.learner, run.longest_sequence)
