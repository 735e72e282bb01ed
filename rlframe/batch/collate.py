"""Training samples -> a packed batch, in which neighbours may share a common prefix. Pure."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import torch

from rlframe.training import UNRECORDED_EXPERT, Packing, TrainBatch, TrainSample

MIN_SHARED_FRACTION = 1 / 16  # of a sequence: the shortest prefix common to two prompts that the learner computes once


def collate(samples: list[TrainSample], packing: Packing = "shared", version: int = 0) -> TrainBatch:
    """Samples end to end, without padding; sequence i is sample i.

    In `shared` packing a sample leaves out the prefix in common with the previous sample: the group's prompt, or a
    system message of two prompts. In `whole` and `padded` packing every sample is whole. Tokens sampled before
    policy `version` are stale.
    """
    starts = _first_indices(samples, packing)

    def pack(field: str, dtype: torch.dtype) -> torch.Tensor:
        columns = [getattr(sample, field)[start:] for sample, start in zip(samples, starts, strict=True)]
        return torch.from_numpy(np.concatenate(columns)).to(dtype)

    ends = [len(sample.token_ids) for sample in samples]
    lengths = torch.tensor([end - start for start, end in zip(starts, ends, strict=True)])
    rollout_logprobs = pack("rollout_logprobs", torch.float32)
    return TrainBatch(
        token_ids=pack("token_ids", torch.int64),
        rollout_logprobs=rollout_logprobs,
        old_logprobs=rollout_logprobs,
        ref_logprobs=None,
        advantages=pack("advantages", torch.float32),
        loss_weights=pack("loss_weights", torch.float32),
        mean_weights=pack("mean_weights", torch.float32),
        sequence_ids=torch.repeat_interleave(torch.arange(len(samples)), lengths),
        position_ids=torch.cat([torch.arange(start, end) for start, end in zip(starts, ends, strict=True)]),
        stale=_stale(samples, starts, version),
        routed_experts=_routed_experts(samples, starts),
    )


def to_device(batch: TrainBatch, device: torch.device) -> TrainBatch:
    """The batch with all tensors on `device`."""
    tensors = {name: getattr(batch, name) for name in TrainBatch.__slots__}
    return replace(batch, **{name: tensor.to(device) for name, tensor in tensors.items() if tensor is not None})


def neighbours(samples: list[TrainSample], packing: Packing = "shared") -> list[int]:
    """Indices of a micro-batch's samples in the order to collate: common prefixes side by side, padded rows as is."""
    order = list(range(len(samples)))
    if packing == "padded":
        return order
    prefixes = [(sample.token_ids[: sample.prefix_tokens].tobytes(), sample.prompt_id) for sample in samples]
    return sorted(order, key=prefixes.__getitem__)


def _first_indices(samples: list[TrainSample], packing: Packing) -> list[int]:
    """[N] index of the first token that each sample holds itself."""
    if packing != "shared":
        return [0] * len(samples)
    return [0, *(_prefix_end(sample, previous) for previous, sample in itertools.pairwise(samples))]


def _prefix_end(sample: TrainSample, previous: TrainSample) -> int:
    """End of the prefix that `sample` shares with `previous`; 0 where the prefix is too short to be worth sharing."""
    if sample.prompt_id == previous.prompt_id:
        return sample.prefix_tokens
    longest = min(sample.prefix_tokens, len(previous.token_ids))
    differences = np.flatnonzero(sample.token_ids[:longest] != previous.token_ids[:longest])
    common = int(differences[0]) if len(differences) else longest
    return common if common >= MIN_SHARED_FRACTION * len(sample.token_ids) else 0


def _stale(samples: list[TrainSample], starts: list[int], version: int) -> torch.Tensor:
    """[T] bool: tokens that an older policy than `version` sampled."""
    columns = []
    for sample, start in zip(samples, starts, strict=True):
        versions = np.full(len(sample.token_ids), version) if sample.versions is None else sample.versions
        columns.append((sample.sampled & (versions < version))[start:])
    return torch.from_numpy(np.concatenate(columns))


def _routed_experts(samples: list[TrainSample], starts: list[int]) -> torch.Tensor | None:
    """[T, layers, k] int16, UNRECORDED_EXPERT for samples without recorded experts; None when no sample has any."""
    recorded = next((sample.routed_experts for sample in samples if sample.routed_experts is not None), None)
    if recorded is None:
        return None
    columns = []
    for sample, start in zip(samples, starts, strict=True):
        routes = np.full((len(sample.token_ids), *recorded.shape[1:]), UNRECORDED_EXPERT, np.int16)
        if sample.routed_experts is not None:
            routes[: len(sample.routed_experts)] = sample.routed_experts
        columns.append(routes[start:])
    return torch.from_numpy(np.concatenate(columns))
