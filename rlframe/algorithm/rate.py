"""Scored groups -> rated groups: every advantage of a step, computed once. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rlframe.types import RatedGroup, ScoredGroup

if TYPE_CHECKING:
    from rlframe.algorithm.base import Algorithm


def rate(groups: list[ScoredGroup], algorithm: Algorithm) -> list[RatedGroup]:
    """The groups with their advantages, after the algorithm's normalisation over the step.

    A trajectory without a reward or a sampled token gets None and counts in neither baseline nor loss. A group with
    fewer than two usable trajectories has nothing to compare: every trajectory gets None.
    """
    usable = [usable_indices(group) for group in groups]
    advantages = [
        _group_advantages(group.select(indices), algorithm) for group, indices in zip(groups, usable, strict=True)
    ]
    flat = [values.reshape(-1) for group_values in advantages for values in group_values]
    if flat:
        normalized = iter(algorithm.over_step(torch.cat(flat)).split([len(values) for values in flat]))
        advantages = [[next(normalized).reshape(tensor.shape) for tensor in tensors] for tensors in advantages]
    return [
        RatedGroup(scored=group, advantages=_spread(values, indices, len(group.rewards)))
        for group, values, indices in zip(groups, advantages, usable, strict=True)
    ]


def usable_indices(group: ScoredGroup) -> list[int]:
    """Indices of the trajectories with a reward and a sampled token; empty where fewer than two have both."""
    usable = [
        index
        for index, (reward, length) in enumerate(zip(group.rewards, group.lengths, strict=True))
        if reward is not None and length
    ]
    return usable if len(usable) >= 2 else []


def has_signal(group: ScoredGroup) -> bool:
    """True if a group's rewards differ. Equal rewards have advantage 0, and in most algorithms no gradient."""
    return len({reward for reward in group.rewards if reward is not None}) > 1


def _group_advantages(group: ScoredGroup, algorithm: Algorithm) -> list[Tensor]:
    """[G] tensors of shape [] or [sampled tokens]; empty for a group without usable trajectories."""
    if not group.rewards:
        return []
    advantages = list(algorithm.advantages(group))
    for values, length in zip(advantages, group.lengths, strict=True):
        if values.ndim and len(values) != length:
            raise ValueError(
                f"algorithm {algorithm.name!r} returned {len(values)} advantages for a trajectory of prompt "
                f"{group.group.prompt.id!r} with {length} sampled tokens"
            )
    return advantages


def _spread(values: list[Tensor], indices: list[int], count: int) -> list:
    """[count] advantages as numbers or arrays, None at every index that is not in `indices`."""
    by_index = dict(zip(indices, values, strict=True))
    return [
        None if (value := by_index.get(index)) is None else value.numpy() if value.ndim else float(value)
        for index in range(count)
    ]
