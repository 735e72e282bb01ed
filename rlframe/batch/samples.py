"""Rated groups -> training samples, a sample for each path of a trajectory. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from rlframe.errors import RunFailed
from rlframe.training import TrainSample
from rlframe.types import Completion, RatedGroup, RolloutGroup, ScoredGroup, Trajectory, VersionSpan

if TYPE_CHECKING:
    from rlframe.algorithm import Algorithm
    from rlframe.objective import Objective


def to_minibatches(groups: list[RatedGroup], objective: Objective, count: int) -> list[list[TrainSample]]:
    """[count or fewer][samples]: a step's groups in `count` equal parts. Token weights are means over a part.

    A trajectory of advantage 0 counts in the token weights of the minibatch. If the objective has no gradient at
    advantage 0, such trajectories are left out, except from a minibatch where every advantage is 0, which is kept
    whole. A minibatch in which every advantage is None is left out. Raises RunFailed, with a reward's own words, when
    no minibatch is left.
    """
    bounds = [len(groups) * minibatch // count for minibatch in range(count + 1)]
    minibatches = [to_samples(groups[start:end], objective.algorithm) for start, end in itertools.pairwise(bounds)]
    if not any(minibatches):
        raise RunFailed(_nothing_to_learn(groups))
    if objective.skips_zero_advantage:
        minibatches = [[sample for sample in samples if sample.advantages.any()] or samples for samples in minibatches]
    return [samples for samples in minibatches if samples]


def to_samples(groups: list[RatedGroup], algorithm: Algorithm) -> list[TrainSample]:
    """The samples of an update, weighted over all trajectories of `groups` that have an advantage."""
    rated = [
        (p, g, group.scored.group, advantage)
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
        for sample in trajectory_samples(group, g, advantage, weight, mean_scale)
    ]


def to_probes(groups: list[ScoredGroup]) -> dict[tuple[int, int], list[TrainSample]]:
    """(p, g) -> samples of trajectory g of group p, to be evaluated only. Without a reward or a token: no entry."""
    return {
        (p, g): list(trajectory_samples(scored.group, g, advantage=0.0, weight=1.0, mean_scale=1.0))
        for p, scored in enumerate(groups)
        for g, (trajectory, reward) in enumerate(zip(scored.group.trajectories, scored.rewards, strict=True))
        if reward is not None and trajectory.sampled_tokens
    }


def deduct(groups: list[ScoredGroup], penalties: dict[tuple[int, int], np.ndarray]) -> list[ScoredGroup]:
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


def in_turn_order(trajectory: Trajectory, path_values: list[np.ndarray]) -> np.ndarray:
    """Values of the tokens that each path trains on -> [sampled tokens], turn after turn.

    The turns 0 - 2 and 0 - 1 give paths that train on turns 0 and 2, then on turn 1:

        path_values [[a, c], [b]]    ->    [a, b, c], for turns of one token
    """
    trained_turns = list(dict.fromkeys(turn for path in trajectory.paths() for turn in path))
    lengths = [len(trajectory.turns[turn].completion.token_ids) for turn in trained_turns]
    pieces = np.split(np.concatenate(path_values), list(itertools.accumulate(lengths))[:-1])
    by_turn = dict(zip(trained_turns, pieces, strict=True))
    return np.concatenate([by_turn[turn] for turn in range(len(trajectory.turns))])


def trajectory_samples(
    group: RolloutGroup, g: int, advantage: float | np.ndarray, weight: float, mean_scale: float
) -> Iterator[TrainSample]:
    """Yields a sample for each path from the root to a leaf of trajectory `g`; a chain has a single path.

    `advantage`: a number, or an array with a number for each sampled token, turn after turn. `weight`: the loss weight
    of each sampled token, and times `mean_scale` its mean weight. A turn that several paths share is trained on once,
    in the first path:

        turns 0 - 1 and 0 - 2    path [0, 1] trains on turns 0 and 1, path [0, 2] on turn 2 only
    """
    turns = group.trajectories[g].turns
    ends = list(itertools.accumulate(len(turn.completion.token_ids) for turn in turns))
    turn_advantages = np.split(np.broadcast_to(np.asarray(advantage, np.float32), ends[-1:]), ends[:-1])
    trained: set[int] = set()
    for path in group.trajectories[g].paths():
        columns: list[tuple[np.ndarray, ...]] = []
        for index in path:
            fresh = index not in trained
            columns += [
                _observed_columns(turns[index].observed),
                _sampled_columns(turns[index].completion, turn_advantages[index] * fresh, weight * fresh),
            ]
        token_ids, sampled, versions, rollout_logprobs, advantages, loss_weights = map(
            np.concatenate, zip(*columns, strict=True)
        )
        first = next(index for index in path if index not in trained)
        prefix = columns[: 2 * path.index(first) + 1]
        yield TrainSample(
            # The id of a later path differs from the prompt's, since the prefix is longer than the prompt.
            prompt_id=f"{group.prompt.id}#{g}.{first}" if trained else group.prompt.id,
            prefix_tokens=sum(len(tokens) for tokens, *_ in prefix),
            token_ids=token_ids,
            sampled=sampled,
            rollout_logprobs=rollout_logprobs,
            advantages=advantages,
            loss_weights=loss_weights,
            mean_weights=loss_weights * np.float32(mean_scale),
            versions=versions,
            routed_experts=turns[path[-1]].completion.routed_experts,
        )
        trained.update(path)


def _sampled_columns(completion: Completion, advantages: np.ndarray, weight: float) -> tuple[np.ndarray, ...]:
    """token_ids, sampled, versions, rollout_logprobs, advantages, loss_weights of a completion, [L] each."""
    length = len(completion.token_ids)
    return (
        np.asarray(completion.token_ids, np.int32),
        np.ones(length, bool),
        _token_versions(completion.versions),
        np.asarray(completion.logprobs, np.float32),
        advantages,
        np.full(length, weight, np.float32),
    )


def _token_versions(spans: list[VersionSpan]) -> np.ndarray:
    """[L] int32, from contiguous spans over [L]."""
    versions = np.array([span.version for span in spans], np.int32)
    return versions.repeat(np.array([span.end - span.start for span in spans], np.int64))


def _observed_columns(token_ids: np.ndarray) -> tuple[np.ndarray, ...]:
    """The same columns of tokens that the policy did not sample."""
    zeros = np.zeros(len(token_ids), np.float32)
    sampled, versions = np.zeros(len(token_ids), bool), np.zeros(len(token_ids), np.int32)
    return np.asarray(token_ids, np.int32), sampled, versions, zeros, zeros, zeros


def _nothing_to_learn(groups: list[RatedGroup]) -> str:
    """The reason why no trajectory of a step has an advantage."""
    scored = [group.scored for group in groups]
    verdicts = [verdict for group in scored for named in group.verdicts.values() for verdict in named]
    failures = [verdict.detail for verdict in verdicts if verdict.status == "failed"]
    because = f"{len(failures)} verdicts failed; the first: {failures[0]}" if failures else "completions are empty"
    return f"no completion of {len(groups)} groups can be trained on: {because}"
