"""The policy on a packed batch against the plain transformers model on each sequence alone: a tiny random Llama."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    DeepseekV3Config,
    Gemma2Config,
    GptOssConfig,
    Lfm2Config,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    PreTrainedConfig,
    Qwen3Config,
)

from rlframe.batch.collate import collate
from rlframe.model import attention
from rlframe.model.policy import Policy
from rlframe.training import PACKED_ATTENTION, Packing, TrainBatch, TrainSample
from tests.tiny.models import load_model

PROMPT_TOKENS = 2
LENGTHS = [7, 3, 12, 4]


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def folder(request, tmp_path) -> Path:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.2, tie_word_embeddings=request.param,
        bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    return tmp_path


@pytest.fixture
def plain(folder) -> nn.Module:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


@pytest.fixture
def policy(folder) -> Policy:
    model = load_model(folder, torch.float32, PACKED_ATTENTION, "shared")
    return Policy(model, torch.float32, "shared")


def sequences() -> list[Tensor]:
    torch.manual_seed(1)
    return [torch.randint(3, 61, (length,)) for length in LENGTHS]


def packed(parts: list[Tensor]) -> TrainBatch:
    """Sequences whose first two tokens are the prompt, which has weight 0."""
    tokens = torch.cat(parts)
    lengths = torch.tensor([len(part) for part in parts])
    position_ids = torch.cat([torch.arange(len(part)) for part in parts])
    return TrainBatch(
        token_ids=tokens,
        rollout_logprobs=torch.zeros(len(tokens)),
        old_logprobs=torch.zeros(len(tokens)),
        ref_logprobs=None,
        advantages=torch.ones(len(tokens)),
        loss_weights=(position_ids >= PROMPT_TOKENS).float() / 10,
        mean_weights=(position_ids >= PROMPT_TOKENS).float() / 10,
        sequence_ids=torch.repeat_interleave(torch.arange(len(parts)), lengths),
        position_ids=position_ids,
    )


def alone(plain: nn.Module, tokens: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probabilities and entropies of one sequence's completion, from all of its logits."""
    log_softmax = (plain(tokens[None]).logits[0].double() / temperature).log_softmax(-1)
    before = log_softmax[PROMPT_TOKENS - 1 : -1]
    drawn = tokens[PROMPT_TOKENS:]
    return before[torch.arange(len(drawn)), drawn], -(before.exp() * before).sum(-1)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_packed_logprobs_equal_each_sequence_s_alone(policy, plain, temperature):
    batch = packed(sequences())
    logprobs, entropies = policy(batch, temperature)
    wanted = [alone(plain, part, temperature) for part in sequences()]
    counted = batch.loss_weights != 0
    torch.testing.assert_close(logprobs[counted].double(), torch.cat([w[0] for w in wanted]), rtol=0, atol=1e-5)
    torch.testing.assert_close(entropies[counted].double(), torch.cat([w[1] for w in wanted]), rtol=0, atol=1e-5)
    assert logprobs[~counted].abs().sum() == 0


def test_gradients_of_a_packed_batch_are_the_sum_over_sequences(policy, plain):
    policy(packed(sequences()), 1.0)[0].sum().backward()
    for part in sequences():
        alone(plain, part, 1.0)[0].sum().backward()
    got = dict(policy.model.named_parameters())
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(got[name].grad, parameter.grad, rtol=1e-4, atol=1e-4, msg=name)


def test_the_policy_has_the_parameter_names_of_its_checkpoint(policy, plain):
    assert [name for name, _ in policy.model.named_parameters()] == [name for name, _ in plain.named_parameters()]


def test_a_filler_without_weight_leaves_every_gradient_at_0(policy):
    [part, *_] = sequences()
    batch = packed([part])
    filler = TrainBatch(
        token_ids=batch.token_ids,
        rollout_logprobs=batch.rollout_logprobs,
        old_logprobs=batch.old_logprobs,
        ref_logprobs=None,
        advantages=batch.advantages,
        loss_weights=torch.zeros(len(part)),
        mean_weights=torch.zeros(len(part)),
        sequence_ids=batch.sequence_ids,
        position_ids=batch.position_ids,
    )
    policy(filler, 1.0)[0].sum().backward()
    assert [name for name, p in policy.named_parameters() if p.grad is None or p.grad.abs().sum() != 0] == []


SHAPE = {
    "vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 64, "initializer_range": 0.2, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
MODELS = {
    "llama": LlamaConfig(**SHAPE, num_key_value_heads=2, tie_word_embeddings=True),
    "qwen3": Qwen3Config(**SHAPE, num_key_value_heads=1, head_dim=16),
    # Multi-head latent attention: queries and keys of 12 a head, values of 10; a dense layer, then one of experts.
    "deepseek_v3": DeepseekV3Config(
        **SHAPE, num_key_value_heads=4, q_lora_rank=16, kv_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=4,
        v_head_dim=10, n_routed_experts=4, num_experts_per_tok=2, n_group=1, topk_group=1, moe_intermediate_size=16,
        first_k_dense_replace=1,
    ),
    "mistral with a window of 6": MistralConfig(**SHAPE, num_key_value_heads=2, sliding_window=6),
    # A window of 6 in every second layer, scores and logits with a cap.
    "gemma2": Gemma2Config(
        **SHAPE, num_key_value_heads=2, head_dim=8, sliding_window=6, attn_logit_softcapping=2.0,
        final_logit_softcapping=3.0,
    ),
    # Sinks, a window in every second layer, experts.
    "gpt_oss": GptOssConfig(
        **SHAPE, num_key_value_heads=2, head_dim=8, sliding_window=6, num_local_experts=4, num_experts_per_tok=2,
    ),
}  # fmt: skip


def groups() -> list[TrainSample]:
    """Prompts of 9, 5 and 1 tokens with 3, 2 and 2 completions, the second begins with 4 tokens of the first.

    Every token has an advantage of its own.
    """
    rng = np.random.default_rng(2)
    samples = []
    begin = rng.integers(3, 61, 4)
    for prompt_tokens, drawn in ((9, (4, 1, 7)), (5, (6, 2)), (1, (3, 2))):
        prompt = rng.integers(3, 61, prompt_tokens)
        if prompt_tokens > 4:
            prompt[:4] = begin
        for length in drawn:
            counted = np.arange(prompt_tokens + length) >= prompt_tokens
            samples.append(
                TrainSample(
                    prompt_id=f"p{prompt_tokens}",
                    prefix_tokens=prompt_tokens,
                    token_ids=np.concatenate([prompt, rng.integers(3, 61, length)]).astype(np.int32),
                    sampled=counted,
                    rollout_logprobs=np.zeros(len(counted), np.float32),
                    advantages=(rng.normal(size=len(counted)) * counted).astype(np.float32),
                    loss_weights=(counted / 23).astype(np.float32),
                    mean_weights=(counted / 23).astype(np.float32),
                )
            )
    return samples


def learned(
    config: PreTrainedConfig,
    batches: list[TrainBatch],
    implementation: str = PACKED_ATTENTION,
    checkpointing: bool = False,
    packing: Packing = "shared",
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Log-probabilities and entropies of every completion's tokens, and the gradient of every parameter."""
    torch.manual_seed(3)
    attention.register()
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation=implementation)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    policy = Policy(model, torch.float32, packing).train()
    logprobs, entropies = [], []
    for batch in batches:
        of_tokens, entropy = policy(batch, 0.8)
        (of_tokens * batch.advantages * batch.loss_weights).sum().backward()
        counted = batch.loss_weights != 0
        logprobs.append(of_tokens.detach()[counted])
        entropies.append(entropy[counted])
    gradients = {name: p.grad for name, p in policy.named_parameters() if p.grad is not None}
    return torch.cat(logprobs), torch.cat(entropies), gradients


@pytest.mark.parametrize("model", MODELS)
def test_a_shared_prompt_gives_the_values_of_transformers_attention(model):
    samples = groups()
    together = [collate(samples)]
    alone = [collate([sample]) for sample in samples]
    assert len(together[0].token_ids) == 36 and sum(len(batch.token_ids) for batch in alone) == 64
    logprobs, entropies, gradients = learned(MODELS[model], together)
    wanted_logprobs, wanted_entropies, wanted = learned(MODELS[model], alone, "eager")
    torch.testing.assert_close(logprobs, wanted_logprobs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(entropies, wanted_entropies, rtol=1e-5, atol=1e-5)
    assert gradients.keys() == wanted.keys() and len(gradients) >= 20
    off = {name: float((gradients[name] - wanted[name]).abs().max() / wanted[name].abs().max()) for name in wanted}
    assert max(off.values()) < 1e-5, off


def test_padded_rows_give_a_convolution_model_the_values_of_lone_sequences():
    config = Lfm2Config(**SHAPE, num_key_value_heads=2, layer_types=["conv", "full_attention"])
    samples = groups()
    logprobs, entropies, gradients = learned(config, [collate(samples, "padded")], "sdpa", packing="padded")
    alone = [collate([sample], "whole") for sample in samples]
    wanted_logprobs, wanted_entropies, wanted = learned(config, alone, "eager", packing="padded")
    torch.testing.assert_close(logprobs, wanted_logprobs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(entropies, wanted_entropies, rtol=1e-5, atol=1e-5)
    for name, gradient in wanted.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def test_sharing_prompts_changes_no_log_probability():
    shared, whole = collate(groups()), collate(groups(), packing="whole")
    assert [len(batch.token_ids) for batch in (shared, whole)] == [36, 64]
    answers = [learned(MODELS["llama"], [batch])[0] for batch in (shared, whole)]
    torch.testing.assert_close(*answers, rtol=1e-5, atol=1e-5)


def test_recomputed_activations_share_prefixes_too():
    batch = [collate(groups())]
    kept, again = (learned(MODELS["qwen3"], batch, checkpointing=checkpointing)[2] for checkpointing in (False, True))
    assert all(torch.equal(kept[name], again[name]) for name in kept)
