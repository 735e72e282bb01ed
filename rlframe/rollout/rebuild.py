"""Shards -> whole tensors, and the check that the tensors are the learner's."""

from __future__ import annotations

import math
import warnings

import numpy as np
import torch
from torch import Tensor

from rlframe.weights.shards import ArrivedShard, ShardHeader, checksum


def rebuild(shards: list[ArrivedShard]) -> dict[str, Tensor]:
    """All ranks' shards of some tensors, with their deltas -> whole tensors by name.

    A tensor of a single shard without a delta is a read-only view of the shard; all further tensors are copies.
    Raises RuntimeError where a part of a tensor is missing.
    """
    by_name: dict[str, list[ArrivedShard]] = {}
    for shard in shards:
        by_name.setdefault(shard.header.name, []).append(shard)
    return {name: _whole(tensor_shards) for name, tensor_shards in by_name.items()}


def differing(shards: list[ArrivedShard], tensors: dict[str, Tensor]) -> set[str]:
    """Names of the `tensors` rebuilt from `shards` whose values are not the learner's, by the checksums."""
    names = set()
    for header, _, _, expected in shards:
        values = tensors[header.name].reshape(-1)[header.start : header.start + header.size]
        if checksum(values.view(torch.uint8).numpy()) != expected:
            names.add(header.name)
    return names


def _whole(shards: list[ArrivedShard]) -> Tensor:
    """A tensor from all ranks' shards."""
    first = shards[0]
    count = math.prod(first.header.shape)
    if (present := sum(shard.header.size for shard in shards)) != count:
        raise RuntimeError(f"{first.header.name} has {present} of its {count} values")
    if first.delta is None and first.header.size == count:
        return _as_tensor(first.values, first.header)
    values = np.empty(count, first.values.dtype)
    for header, shard_values, delta, _ in shards:
        target = values[header.start : header.start + header.size]
        np.copyto(target, shard_values)
        if delta is not None and len(delta.indices):
            np.put(target, delta.indices, delta.values, mode="clip")  # the checksum finds a broken index
    return _as_tensor(values, first.header)


def _as_tensor(values: np.ndarray, header: ShardHeader) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the object store is read-only, and loaders only copy out of it
        return torch.from_numpy(values).view(getattr(torch, header.dtype)).view(header.shape)
