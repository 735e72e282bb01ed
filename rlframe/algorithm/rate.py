"""Scored groups -> rated groups: every advantage of a step, computed once. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from rlframe.training import GroupRecord, RatedGroup

if TYPE_CHECKING:
    from torch import Tensor

    from rlframe.algorithm.base import Algorithm

Truncated: TypeAlias = Literal["train", "mask", "drop"]  # treatment of completions cut off at the length limit


def rate(groups: list[GroupRecord], algorithm: Algorithm, truncated: Truncated = "train") -> list[RatedGroup]:
    """The groups with their advantages, after the algorithm's normalisation over the step.

    A trajectory without a reward or a sampled token gets None and counts in neither baseline nor loss. The same goes
    for a trajectory that was cut off at the length limit if `truncated` is "drop"; if "mask", it gets None and counts
    in the baseline. A group with fewer usable trajectories than the algorithm compares has no advantage: all get None,
    or 0 where single tokens have rewards, which compare with nothing and are added by `batch/sequences.py`. A step that
    has nothing to train on but completions cut off keeps every trajectory, at advantage 0.
    """
    usable = [_usable_indices(group, algorithm, truncated) for group in groups]
    advantages = [
        _group_advantages(group.select(indices), algorithm) for group, indices in zip(groups, usable, strict=True)
    ]
    flat = [values.reshape(-1) for group_values in advantages for values in group_values]
    if flat:
        import torch  # not above: a config is checked without it

        normalized = iter(algorithm.over_step(torch.cat(flat)).split([len(values) for values in flat]))
        advantages = [[next(normalized).reshape(tensor.shape) for tensor in tensors] for tensors in advantages]
    rated = [
        RatedGroup(scored=group, advantages=_spread(values, indices, group, truncated))
        for group, values, indices in zip(groups, advantages, usable, strict=True)
    ]
    if truncated != "train" and all(advantage is None for group in rated for advantage in group.advantages):
        return [_without_signal(group) for group in groups]
    return rated


def _without_signal(group: GroupRecord) -> RatedGroup:
    """The group with advantage 0, and no rewards of tokens, for every trajectory with a reward and a sampled token."""
    scored = zip(group.rewards, group.lengths, strict=True)
    trajectories = [replace(trajectory, token_reward=None) for trajectory in group.trajectories]
    return RatedGroup(
        scored=replace(group, trajectories=trajectories),
        advantages=[0.0 if reward is not None and length else None for reward, length in scored],
    )


def _usable_indices(group: GroupRecord, algorithm: Algorithm, truncated: Truncated) -> list[int]:
    """Indices of the trajectories in the baseline; empty where fewer are left than the algorithm compares."""
    usable = _judged_indices(group, truncated)
    return usable if len(usable) >= (2 if algorithm.compares_completions else 1) else []


def _judged_indices(group: GroupRecord, truncated: Truncated) -> list[int]:
    """Indices of the trajectories with a reward and a token."""
    return [
        index
        for index, (reward, length, reason) in enumerate(
            zip(group.rewards, group.lengths, group.finish_reasons, strict=True)
        )
        if reward is not None and length and not (truncated == "drop" and reason == "length")
    ]


def has_signal(group: GroupRecord, algorithm: Algorithm, truncated: Truncated) -> bool:
    """True if the loss of a group can have a gradient; `dynamic_sampling` replaces the other groups."""
    if _taught_indices(group, truncated):
        return True
    usable = _usable_indices(group, algorithm, truncated)
    trained = _trained_indices(group, usable, truncated)
    return bool(trained) and algorithm.has_signal(group.select(usable))


def _trained_indices(group: GroupRecord, usable: list[int], truncated: Truncated) -> list[int]:
    """The part of `usable` that has a loss."""
    reasons = group.finish_reasons
    return [index for index in usable if truncated == "train" or reasons[index] != "length"]


def _taught_indices(group: GroupRecord, truncated: Truncated) -> list[int]:
    """Indices of the trajectories with a loss whose tokens have rewards of their own."""
    judged = _trained_indices(group, _judged_indices(group, truncated), truncated)
    return [index for index in judged if group.trajectories[index].token_reward is not None]


def _group_advantages(group: GroupRecord, algorithm: Algorithm) -> list[Tensor]:
    """[G] tensors of shape [] or [sampled tokens]; empty for a group without usable trajectories."""
    if not group.rewards:
        return []
    advantages = list(algorithm.advantages(group))
    for values, length in zip(advantages, group.lengths, strict=True):
        if values.ndim and len(values) != length:
            raise ValueError(
                f"algorithm {algorithm.name!r} returned {len(values)} advantages for a trajectory of prompt "
                f"{group.prompt_id!r} with {length} sampled tokens"
            )
    return advantages


def _spread(values: list[Tensor], usable: list[int], group: GroupRecord, truncated: Truncated) -> list:
    """[G] advantages as numbers or arrays, None for a trajectory without a loss."""
    by_index = dict(zip(usable, values, strict=True))
    advantages: list[Any] = [None] * len(group.rewards)
    for index in _taught_indices(group, truncated):
        advantages[index] = 0.0
    for index in _trained_indices(group, usable, truncated):
        value = by_index[index]
        advantages[index] = value.numpy() if value.ndim else float(value)
    return advantages
