"""Rated groups -> planned samples, a sample for each path of a trajectory. Pure; runs on the driver's CPU."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from rlframe.errors import RunFailed
from rlframe.training import GroupRecord, PlannedSample, RatedGroup, TrajectoryRecord

if TYPE_CHECKING:
    from rlframe.algorithm import Algorithm
    from rlframe.objective.objective import Objective


def to_minibatches(
    groups: list[RatedGroup], objective: Objective, count: int, oldest_version: int | None = None
) -> list[list[PlannedSample]]:
    """[count or fewer][samples]: a step's groups in `count` equal parts. Token weights are means over a part.

    Tokens of versions before `oldest_version` lose their weight, and count in the means as they would with it.

    A trajectory of advantage 0 counts in the token weights of the minibatch. If the objective has no gradient at
    advantage 0, such trajectories are left out unless single tokens have rewards, and except from a minibatch of such
    trajectories alone, which is kept whole. A minibatch in which every advantage is None is left out. Raises RunFailed,
    with a reward's own words, when no minibatch is left.
    """
    bounds = [len(groups) * minibatch // count for minibatch in range(count + 1)]
    minibatches = [
        to_samples(groups[start:end], objective.algorithm, oldest_version) for start, end in itertools.pairwise(bounds)
    ]
    if not any(minibatches):
        raise RunFailed(_nothing_to_learn(groups))
    if objective.skips_zero_advantage:
        minibatches = [
            [sample for sample in samples if np.any(sample.advantage) or sample.has_token_rewards] or samples
            for samples in minibatches
        ]
    return [samples for samples in minibatches if samples]


def to_samples(
    groups: list[RatedGroup], algorithm: Algorithm, oldest_version: int | None = None
) -> list[PlannedSample]:
    """The samples of an update, weighted over all trajectories of `groups` that have an advantage."""
    rated = [
        (p, g, group.scored, advantage)
        for p, group in enumerate(groups)
        for g, advantage in enumerate(group.advantages)
        if advantage is not None
    ]
    if not rated:
        return []
    lengths = torch.tensor([group.trajectories[g].sampled_tokens for _, g, group, _ in rated], dtype=torch.float32)
    weights = algorithm.token_weights(lengths, torch.tensor([p for p, *_ in rated]))
    total = float((weights.double() * lengths.double()).sum())  # over all tokens
    mean_scale = 1 / total if total else 0.0
    return [
        sample
        for (_, g, group, advantage), weight in zip(rated, weights.tolist(), strict=True)
        for sample in _paths(group, g, advantage, weight, mean_scale, oldest_version)
    ]


def to_probes(groups: list[GroupRecord]) -> dict[tuple[int, int], list[PlannedSample]]:
    """(p, g) -> samples of trajectory g of group p, to be evaluated only. Without a reward or a token: no entry."""
    return {
        (p, g): list(_paths(group, g, advantage=0.0, weight=1.0, mean_scale=1.0))
        for p, group in enumerate(groups)
        for g, (length, reward) in enumerate(zip(group.lengths, group.rewards, strict=True))
        if reward is not None and length
    }


def deduct(groups: list[GroupRecord], penalties: dict[tuple[int, int], np.ndarray]) -> list[GroupRecord]:
    """The groups with penalties subtracted from their rewards: (p, g) -> [sampled tokens], turn after turn."""
    return [
        replace(
            group,
            rewards=[
                None if reward is None else reward - float(penalties.get((p, g), np.zeros(0)).sum(dtype=np.float64))
                for g, reward in enumerate(group.rewards)
            ],
            token_penalties=[
                penalties.get((p, g), np.zeros(length, np.float32)) for g, length in enumerate(group.lengths)
            ],
        )
        for p, group in enumerate(groups)
    ]


def in_turn_order(trajectory: TrajectoryRecord, path_values: list[np.ndarray]) -> np.ndarray:
    """Values of the tokens that each path trains on -> [sampled tokens], turn after turn.

    The turns 0 - 2 and 0 - 1 give paths that train on turns 0 and 2, then on turn 1:

        path_values [[a, c], [b]]    ->    [a, b, c], for turns of one token
    """
    ordered = np.empty(trajectory.sampled_tokens, np.float32)
    for sequence, values in zip(trajectory.sequences, path_values, strict=True):
        read = 0
        for start, end in sequence.trained:
            ordered[start:end] = values[read : read + end - start]
            read += end - start
    return ordered


def _paths(
    group: GroupRecord,
    g: int,
    advantage: float | np.ndarray,
    weight: float,
    mean_scale: float,
    oldest_version: int | None = None,
) -> Iterator[PlannedSample]:
    """Yields a sample for each path of trajectory `g`.

    `advantage`: a number, or an array with a number for each sampled token, turn after turn. `weight`: the loss weight
    of each sampled token, and times `mean_scale` its mean weight.
    """
    for path, sequence in enumerate(group.trajectories[g].sequences):
        if isinstance(advantage, np.ndarray):
            path_advantage = np.concatenate([advantage[start:end] for start, end in sequence.trained])
        else:
            path_advantage = advantage
        yield PlannedSample(
            prompt_id=sequence.prompt_id,
            prefix_tokens=sequence.prefix_tokens,
            tokens=sequence.tokens,
            body=group.body,
            trajectory=g,
            path=path,
            advantage=path_advantage,
            weight=weight,
            mean_scale=mean_scale,
            oldest_version=oldest_version,
            has_token_rewards=group.trajectories[g].token_reward is not None,
        )


def _nothing_to_learn(groups: list[RatedGroup]) -> str:
    """The reason why no trajectory of a step has an advantage."""
    scored = [group.scored for group in groups]
    verdicts = [verdict for group in scored for named in group.verdicts.values() for verdict in named]
    failures = [verdict.detail for verdict in verdicts if verdict.status == "failed"]
    because = f"{len(failures)} verdicts failed; the first: {failures[0]}" if failures else "completions are empty"
    return f"no completion of {len(groups)} groups can be trained on: {because}"
