"""The learner on real DeepSpeed ZeRO-3 ranks, on a random model in float32."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from rlframe.algorithm import DAPO, GSPO
from rlframe.batch.collate import collate
from rlframe.batch.shares import to_shares
from rlframe.learner.bodies import to_micro_batches
from rlframe.learner.config import LearnerConfig
from rlframe.learner.rank import LearnerRank
from rlframe.model.policy import PREFIX
from rlframe.objective.correction import TruncatedImportanceSampling
from rlframe.objective.objective import Objective
from rlframe.training import TrainSample
from tests.conftest import compose, tiny_overrides
from tests.learner.conftest import Launch
from tests.tiny import learner as tiny

OBJECTIVE = Objective(algorithm=DAPO(name="dapo", clip_low=0.2, clip_high=0.28))
TIS = TruncatedImportanceSampling(name="tis", cap=2.0)


class GradientRank(LearnerRank):
    """A rank that also returns whole gradients."""

    def gradients(self, micro_batches: list[list[TrainSample]], objective: Objective) -> dict[str, np.ndarray]:
        from deepspeed.utils import safe_get_full_grad

        [samples] = to_micro_batches([micro_batches], self.packing)
        batches = [collate(micro_batch, self.packing) for micro_batch in samples]
        self.updater.accumulate(samples, batches, objective, first=True)
        named = self.engine.module.named_parameters()
        return {name.removeprefix(PREFIX): safe_get_full_grad(tensor).numpy() for name, tensor in named}

    def drop_gradients(self) -> None:
        self.optimizer.zero_grad()


@pytest.fixture(scope="module", autouse=True)
def by_value() -> None:
    """Sends this module's classes to the ranks' processes, which cannot import it."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope="module")
def config(tiny_model: Path) -> LearnerConfig:
    return compose(tiny_overrides(tiny_model)).learner.model_copy(update={"max_grad_norm": 1e9})


Start = Callable[..., list[Any]]


@pytest.fixture
def start(config: LearnerConfig, tiny_model: Path, launch: Launch) -> Start:
    def start(ranks: int, model: Path = tiny_model, **settings: Any) -> list[Any]:
        return launch(config.model_copy(update=settings), model, ranks, kind=GradientRank)

    return start


def make_samples(count: int = 10) -> list[TrainSample]:
    """Random sequences in groups of three (the last may be smaller), with the loss weights of a token mean.

    A group shares a prompt of 12 tokens; completions have 8 to 48 tokens.
    """
    rng = np.random.default_rng(7)
    prompts = rng.integers(0, 256, (count, 12))
    lengths = rng.integers(20, 60, count)
    completion_tokens = int((lengths - 12).sum())
    samples = []
    for index, length in enumerate(lengths):
        token_ids = np.concatenate([prompts[index // 3], rng.integers(0, 256, length - 12)])
        samples.append(tiny.make_sample(rng, f"p{index // 3}", token_ids, completion_tokens))
    return samples


def gradients(
    handles: list[Any], samples: list[TrainSample], max_tokens: int, objective: Objective
) -> dict[str, np.ndarray]:
    shares = to_shares(samples, len(handles), max_tokens)
    calls = [handle.gradients.remote(share, objective) for handle, share in zip(handles, shares, strict=True)]
    return ray.get(calls)[0]


def packed_tokens(samples: list[TrainSample]) -> int:
    [[micro_batch]] = to_micro_batches([[samples]], "shared")
    return len(collate(micro_batch).token_ids)


def step(
    handles: list[Any], version: int, objective: Objective = OBJECTIVE, minibatches: int = 1
) -> list[dict[str, float]]:
    samples = make_samples()
    return tiny.step(
        handles, version, *(samples[index::minibatches] for index in range(minibatches)), objective=objective
    )


def exported(handles: list[Any], folder: Path) -> dict[str, np.ndarray]:
    tiny.save(handles, folder.with_name(f"{folder.name}_state"), folder)
    return tiny.exported(folder)


def largest_difference(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> float:
    """The largest difference of all tensors, in units of each tensor's largest entry."""
    assert left.keys() == right.keys()
    return max(float(np.abs(left[name] - right[name]).max() / np.abs(left[name]).max()) for name in left)


def test_two_sequence_parallel_ranks_match_one_rank(
    start: Start,
) -> None:
    # Groups share prompts, GSPO reads whole sequences, and the model's two heads share keys, which are doubled.
    one, two = start(1), start(2, sequence_parallel=2)
    samples = make_samples()
    [share] = to_shares(samples, 1, 128)
    assert len(share) > 2 and any(packed_tokens(batch) % 2 for batch in share)
    for objective in (OBJECTIVE, Objective(algorithm=GSPO(name="gspo", clip_low=0.02, clip_high=0.03))):
        alone = ray.get(one[0].gradients.remote(share, objective))
        together = ray.get([handle.gradients.remote(share, objective) for handle in two])[0]
        assert largest_difference(alone, together) < 1e-5
        ray.get([handle.drop_gradients.remote() for handle in (*one, *two)])
    [expected] = ray.get([one[0].step.remote([share], OBJECTIVE, 0)])
    sums = ray.get([handle.step.remote([share], OBJECTIVE, 0) for handle in two])
    for name in ("tokens", "packed_tokens", "loss", "k3", "entropy"):
        assert sums[0][name] + sums[1][name] == pytest.approx(expected[name], rel=1e-5)
    assert sums[0]["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-5)


@pytest.mark.parametrize(
    "objective",
    [
        OBJECTIVE,
        Objective(algorithm=GSPO(name="gspo", clip_low=0.5, clip_high=0.5), corrections=[TIS], entropy_bonus=0.1),
    ],
    ids=["dapo", "gspo, corrected, with an entropy bonus"],
)
def test_every_split_over_ranks_and_micro_batches_has_one_gradient(start: Start, objective: Objective) -> None:
    samples = make_samples()
    apart = [replace(sample, prompt_id=f"unshared {index}") for index, sample in enumerate(samples)]
    whole, shared = sum(len(s.token_ids) for s in samples), packed_tokens(samples)
    assert whole - shared == 6 * 12  # three groups of three samples and a group of one
    reference = gradients(start(1), apart, whole, objective)  # one rank, one micro-batch, no shared prompt
    assert len(reference) == 20 and all(np.abs(gradient).max() > 0 for gradient in reference.values())
    split = [
        gradients(start(1), samples, shared, objective),  # one micro-batch with four prompts
        gradients(start(2), samples, 128, objective),
        gradients(start(2), samples, 64, objective),  # micro-batches that split groups
    ]
    assert [largest_difference(reference, other) < 1e-4 for other in split] == [True] * 3


def test_three_minibatches_make_three_updates_on_one_rank_and_on_two(start: Start, tmp_path: Path) -> None:
    one, two = start(1), start(2)
    corrected = Objective(algorithm=OBJECTIVE.algorithm, corrections=[TIS], entropy_bonus=0.01)
    alone, shared = step(one, 0, corrected, minibatches=3)[0], step(two, 0, corrected, minibatches=3)
    assert alone["updates"] == shared[0]["updates"] == 3
    assert shared[0]["grad_norm"] == pytest.approx(alone["grad_norm"], rel=1e-4)
    for name in ("loss", "tokens", "k3", "weight", "current_tokens", "current_k3"):
        assert sum(rank[name] for rank in shared) == pytest.approx(alone[name], rel=1e-4), name
    assert max(rank["ratio_max"] for rank in shared) == pytest.approx(alone["ratio_max"], rel=1e-4)
    assert 0 < alone["current_tokens"] < alone["tokens"]
    assert largest_difference(exported(one, tmp_path / "one"), exported(two, tmp_path / "two")) < 2e-3


def test_two_ranks_learn_like_one_and_a_resumed_run_is_bit_equal(start: Start, tmp_path: Path) -> None:
    one, two = start(1), start(2)
    for version in range(2):
        alone, shared = step(one, version), step(two, version)
        assert shared[0]["grad_norm"] == pytest.approx(alone[0]["grad_norm"], rel=1e-4)
        assert sum(rank["loss"] for rank in shared) == pytest.approx(alone[0]["loss"], rel=1e-4)
    tiny.save(two, tmp_path / "saved")
    step(two, 2)
    resumed = start(2)
    ray.get([handle.load.remote(tmp_path / "saved") for handle in resumed])
    step(resumed, 2)
    assert largest_difference(exported(two, tmp_path / "on"), exported(resumed, tmp_path / "again")) == 0.0


def test_log_probabilities_equal_transformers_log_softmax(start: Start, tiny_model: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    handles = start(2)
    samples = make_samples(3)
    ours = tiny.logprobs(handles, samples)
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    for sample, logprobs in zip(samples, ours, strict=True):
        tokens = torch.tensor(sample.token_ids, dtype=torch.long)
        with torch.no_grad():
            vocabulary = torch.log_softmax(model(tokens[None]).logits[0, :-1], dim=-1)
        expected = vocabulary.gather(1, tokens[1:, None])[11:, 0]
        assert np.abs(logprobs[12:] - expected.numpy()).max() < 1e-4
        assert np.abs(logprobs[:12]).max() == 0


def test_an_exported_folder_opens_in_transformers_with_trained_weights(
    start: Start, untied_model: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    handles = start(1, untied_model)
    step(handles, 0)
    tensors = exported(handles, tmp_path / "export")
    opened = dict(AutoModelForCausalLM.from_pretrained(tmp_path / "export").named_parameters())
    assert tensors.keys() == opened.keys()
    assert all((opened[name].detach().numpy() == tensor).all() for name, tensor in tensors.items())
    assert AutoTokenizer.from_pretrained(tmp_path / "export").eos_token == "<|end|>"
    for name in ("config.json", "generation_config.json"):
        assert json.loads((tmp_path / "export" / name).read_text()) == json.loads((untied_model / name).read_text())
