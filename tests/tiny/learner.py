"""Learner ranks for tests: real DeepSpeed ZeRO-3 on a random model, with a method that returns the whole state."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import ray

from rlframe.algorithm import DAPO
from rlframe.batch.collate import collate
from rlframe.batch.shares import to_shares
from rlframe.learner.rank import LearnerRank
from rlframe.model.policy import PREFIX
from rlframe.objective.objective import Objective
from rlframe.record.manifest import WriteReport
from rlframe.schema import deep_merge
from rlframe.training import TrainSample

SMALL_BUCKETS = {"zero_optimization": {"reduce_bucket_size": 5_000, "sub_group_size": 10_000}}
OBJECTIVE = Objective(algorithm=DAPO(name="dapo", clip_low=0.2, clip_high=0.28))


class InspectedRank(LearnerRank):
    """A rank that returns the learner's whole state, gathered from all ranks."""

    def connect(self, address: str, rank: int, timeout_s: float) -> None:
        """Makes buckets so small that a tiny model fills several, as real models do."""
        self.config = self.config.model_copy(update={"deepspeed": deep_merge(SMALL_BUCKETS, self.config.deepspeed)})
        super().connect(address, rank, timeout_s)

    def state(self) -> dict[str, np.ndarray]:
        """Every parameter, its float32 master, the optimizer's state and step counters. A collective."""
        from deepspeed.runtime.zero import GatheredParameters

        values = {}
        for name, parameter in self.engine.module.named_parameters():
            name = name.removeprefix(PREFIX)
            with GatheredParameters([parameter]):
                values[f"model {name}"] = parameter.detach().float().numpy().copy()
            if parameter.requires_grad:
                values[f"master {name}"] = self.optimizer.get_full_hp_param(parameter).numpy().copy()
                subgroup = self.optimizer.grad_position[self.optimizer.get_param_id(parameter)][0]
                flat = self.optimizer.fp32_partitioned_groups_flat[subgroup]
                for key, value in self.optimizer.optimizer.state.get(flat, {}).items():
                    if getattr(value, "ndim", 0):
                        values[f"{key} {name}"] = self.optimizer.get_full_hp_param(parameter, key).numpy().copy()
                    else:
                        values[f"{key} {name}"] = np.array(float(value))
        return values


def make_samples(count: int = 6, seed: int = 7) -> list[TrainSample]:
    """Sequences of 20 to 60 random tokens with prompts of 12 tokens, and the loss weights of a token mean."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(20, 60, count)
    completion_tokens = int((lengths - 12).sum())
    return [
        make_sample(rng, f"p{index}", rng.integers(0, 256, length), completion_tokens)
        for index, length in enumerate(lengths)
    ]


def make_sample(rng: np.random.Generator, prompt_id: str, token_ids: np.ndarray, completion_tokens: int) -> TrainSample:
    """A sample with a prompt of 12 tokens and random numbers, weighted for a mean over `completion_tokens` tokens."""
    length = len(token_ids)
    counted = np.arange(length) >= 12
    return TrainSample(
        prompt_id=prompt_id,
        prefix_tokens=12,
        token_ids=token_ids.astype(np.int32),
        sampled=counted,
        rollout_logprobs=np.where(counted, -5.0 + rng.normal(size=length), 0).astype(np.float32),
        advantages=np.where(counted, rng.normal(), 0).astype(np.float32),
        loss_weights=(counted / completion_tokens).astype(np.float32),
        mean_weights=(counted / completion_tokens).astype(np.float32),
    )


def step(
    handles: list[Any], version: int, *minibatches: list[TrainSample], objective: Objective = OBJECTIVE
) -> list[dict[str, float]]:
    """Makes a step on every rank's share of each minibatch (default: `make_samples()`) -> the sums of each rank."""
    shares = [to_shares(samples, len(handles), 128) for samples in minibatches or (make_samples(),)]
    calls = [
        handle.step.remote([share[rank] for share in shares], objective, version) for rank, handle in enumerate(handles)
    ]
    return ray.get(calls)


def logprobs(handles: list[Any], samples: list[TrainSample]) -> list[np.ndarray]:
    """[L] of each sample under the policy, 0 where the loss weight is 0."""
    return ray.get([handle.__ray_call__.remote(_logprobs, samples) for handle in handles])[0]


def reference_logprobs(handles: list[Any], samples: list[TrainSample]) -> list[np.ndarray]:
    """[L] of each sample under the reference."""
    return ray.get([handle.__ray_call__.remote(_reference_logprobs, samples) for handle in handles])[0]


def _logprobs(rank: LearnerRank, samples: list[TrainSample]) -> list[np.ndarray]:
    return [rank.updater.logprobs(collate([sample])).cpu().numpy() for sample in samples]


def _reference_logprobs(rank: LearnerRank, samples: list[TrainSample]) -> list[np.ndarray]:
    assert rank.reference is not None
    with rank.reference.in_place():
        return _logprobs(rank, samples)


def save(handles: list[Any], folder: Path, export: Path | None = None) -> list[WriteReport]:
    """Lets every rank write its state, and waits for the files -> each rank's report."""
    ray.get([handle.save.remote(folder, export) for handle in handles])
    while None in (reports := ray.get([handle.saved.remote() for handle in handles])):
        time.sleep(0.05)
    return reports


def exported(folder: Path) -> dict[str, np.ndarray]:
    """All tensors in the files of an exported folder."""
    from safetensors.numpy import load_file

    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}


def load(handles: list[Any], folder: Path) -> None:
    ray.get([handle.load.remote(folder) for handle in handles])


def state(handles: list[Any]) -> dict[str, np.ndarray]:
    return ray.get([handle.state.remote() for handle in handles])[0]


def differing(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> list[str]:
    """Names of values that differ in any bit, or that one side lacks."""
    names = sorted(one.keys() | other.keys())
    return [n for n in names if n not in one or n not in other or not np.array_equal(one[n], other[n])]
