"""The learner on real DeepSpeed ZeRO-3 ranks, on a random model in float32."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from rlframe.algorithm import DAPO, GSPO
from rlframe.batch.samples import packed_tokens, shard
from rlframe.learner.config import LearnerConfig
from rlframe.learner.rank import LearnerRank
from rlframe.model.policy import PREFIX
from rlframe.objective import Objective
from rlframe.objective.correction import TruncatedImportanceSampling
from rlframe.types import TrainSample
from tests.conftest import compose, tiny_overrides
from tests.learner.conftest import Launch
from tests.tiny import learner as tiny

OBJECTIVE = Objective(algorithm=DAPO(name="dapo", clip_low=0.2, clip_high=0.28))
TIS = TruncatedImportanceSampling(name="tis", cap=2.0)


class ProbedRank(LearnerRank):
    """A rank that also tells the whole gradient."""

    def gradients(self, micro_batches: list[list[TrainSample]], objective: Objective) -> dict[str, np.ndarray]:
        from deepspeed.utils import safe_get_full_grad

        self.accumulate(micro_batches, [self._collate(samples) for samples in micro_batches], objective, first=True)
        named = self.engine.module.named_parameters()
        return {name.removeprefix(PREFIX): safe_get_full_grad(tensor).numpy() for name, tensor in named}

    def forget(self) -> None:
        self.optimizer.zero_grad()


@pytest.fixture(scope="module", autouse=True)
def by_value() -> None:
    """Ranks' processes get this module's classes without importing it."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope="module")
def config(tiny_model: Path) -> LearnerConfig:
    return compose(tiny_overrides(tiny_model)).learner.model_copy(update={"max_grad_norm": 1e9})


Start = Callable[..., list[Any]]


@pytest.fixture
def start(config: LearnerConfig, tiny_model: Path, launch: Launch) -> Start:
    def start(ranks: int, model: Path = tiny_model, **settings: Any) -> list[Any]:
        return launch(config.model_copy(update=settings), model, ranks, kind=ProbedRank)

    return start


def make_samples(count: int = 10) -> list[TrainSample]:
    """Groups of three (the last of what is left) that share a prompt of 12 tokens and go on for 8 to 48 of their own.

    Tokens are random; weights are those of a token mean.
    """
    rng = np.random.default_rng(7)
    prompts = rng.integers(0, 256, (count, 12))
    lengths = rng.integers(20, 60, count)
    drawn = int((lengths - 12).sum())
    samples = []
    for index, length in enumerate(lengths):
        counted = np.arange(length) >= 12
        samples.append(
            TrainSample(
                prompt_id=f"p{index // 3}",
                prompt_tokens=12,
                token_ids=np.concatenate([prompts[index // 3], rng.integers(0, 256, length - 12)]).astype(np.int32),
                rollout_logprobs=np.where(counted, -5.0 + rng.normal(size=length), 0).astype(np.float32),
                advantages=np.where(counted, rng.normal(), 0).astype(np.float32),
                loss_weights=(counted / drawn).astype(np.float32),
            )
        )
    return samples


def gradients(
    handles: list[Any], samples: list[TrainSample], max_tokens: int, objective: Objective
) -> dict[str, np.ndarray]:
    shares = shard(samples, len(handles), max_tokens)
    calls = [handle.gradients.remote(share, objective) for handle, share in zip(handles, shares, strict=True)]
    return ray.get(calls)[0]


def step(
    handles: list[Any], version: int, objective: Objective = OBJECTIVE, minibatches: int = 1
) -> list[dict[str, float]]:
    samples = make_samples()
    parts = [shard(samples[part::minibatches], len(handles), 128) for part in range(minibatches)]
    calls = [
        handle.step.remote([shares[rank] for shares in parts], objective, version)
        for rank, handle in enumerate(handles)
    ]
    return ray.get(calls)


def exported(handles: list[Any], folder: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    ray.get([handle.export.remote(folder) for handle in handles])
    return load_file(folder / "model.safetensors")


def largest_difference(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> float:
    """Over all tensors, in units of each tensor's largest entry."""
    assert one.keys() == other.keys()
    return max(float(np.abs(one[name] - other[name]).max() / np.abs(one[name]).max()) for name in one)


def test_two_ranks_that_hold_each_micro_batch_together_have_the_gradient_and_metrics_of_one(
    start: Start,
) -> None:
    # Groups share prompts, and GSPO looks at whole sequences. The model's two heads share keys, which are doubled.
    one, two = start(1), start(2, sequence_parallel=2)
    samples = make_samples()
    [share] = shard(samples, 1, 128)
    assert len(share) > 2 and any(packed_tokens(batch) % 2 for batch in share)
    for objective in (OBJECTIVE, Objective(algorithm=GSPO(name="gspo", clip_low=0.02, clip_high=0.03))):
        alone = ray.get(one[0].gradients.remote(share, objective))
        together = ray.get([handle.gradients.remote(share, objective) for handle in two])[0]
        assert largest_difference(alone, together) < 1e-5
        ray.get([handle.forget.remote() for handle in (*one, *two)])
    [wanted] = ray.get([one[0].step.remote([share], OBJECTIVE, 0)])
    parts = ray.get([handle.step.remote([share], OBJECTIVE, 0) for handle in two])
    for name in ("tokens", "packed_tokens", "loss", "k3", "entropy"):
        assert parts[0][name] + parts[1][name] == pytest.approx(wanted[name], rel=1e-5)
    assert parts[0]["grad_norm"] == pytest.approx(wanted["grad_norm"], rel=1e-5)


@pytest.mark.parametrize(
    "objective",
    [
        OBJECTIVE,
        Objective(algorithm=GSPO(name="gspo", clip_low=0.5, clip_high=0.5), correction=TIS, entropy_bonus=0.1),
    ],
    ids=["dapo", "gspo, corrected, with an entropy bonus"],
)
def test_the_gradient_is_the_same_for_every_split_over_ranks_and_micro_batches(
    start: Start, objective: Objective
) -> None:
    samples = make_samples()
    apart = [replace(sample, prompt_id=f"of its own {at}") for at, sample in enumerate(samples)]
    whole, shared = sum(len(s.token_ids) for s in samples), packed_tokens(samples)
    assert whole - shared == 6 * 12  # three groups of three and one of one
    reference = gradients(start(1), apart, whole, objective)  # one rank, one micro-batch, every prompt by itself
    assert len(reference) == 20 and all(np.abs(gradient).max() > 0 for gradient in reference.values())
    split = [
        gradients(start(1), samples, shared, objective),  # all of it behind four prompts
        gradients(start(2), samples, 128, objective),
        gradients(start(2), samples, 64, objective),  # groups are cut here
    ]
    assert [largest_difference(reference, other) < 1e-4 for other in split] == [True] * 3


def test_of_three_minibatches_each_is_an_update_and_two_ranks_move_as_one_does(start: Start, tmp_path: Path) -> None:
    one, two = start(1), start(2)
    corrected = Objective(algorithm=OBJECTIVE.algorithm, correction=TIS, entropy_bonus=0.01)
    alone, shared = step(one, 0, corrected, minibatches=3)[0], step(two, 0, corrected, minibatches=3)
    assert alone["updates"] == shared[0]["updates"] == 3
    assert shared[0]["grad_norm"] == pytest.approx(alone["grad_norm"], rel=1e-4)
    for name in ("loss", "tokens", "k3", "weight", "first_tokens", "first_k3"):
        assert sum(rank[name] for rank in shared) == pytest.approx(alone[name], rel=1e-4), name
    assert max(rank["ratio_max"] for rank in shared) == pytest.approx(alone["ratio_max"], rel=1e-4)
    assert 0 < alone["first_tokens"] < alone["tokens"]
    assert largest_difference(exported(one, tmp_path / "one"), exported(two, tmp_path / "two")) < 2e-3


def test_two_ranks_learn_what_one_learns_and_a_saved_state_goes_on_as_if_never_stopped(
    start: Start, tmp_path: Path
) -> None:
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


def test_log_probabilities_are_those_of_the_plain_model(start: Start, tiny_model: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    handles = start(2)
    samples = make_samples(3)
    ours = ray.get([handle.logprobs.remote(samples) for handle in handles])[0]
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    for sample, logprobs in zip(samples, ours, strict=True):
        tokens = torch.tensor(sample.token_ids, dtype=torch.long)
        with torch.no_grad():
            every = torch.log_softmax(model(tokens[None]).logits[0, :-1], dim=-1)
        expected = every.gather(1, tokens[1:, None])[11:, 0]
        assert np.abs(logprobs[12:] - expected.numpy()).max() < 1e-4
        assert np.abs(logprobs[:12]).max() == 0


def test_an_exported_folder_opens_in_transformers_with_the_weights_that_were_trained(
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
