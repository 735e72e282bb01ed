"""Planned samples and their bodies -> training samples, token by token. Pure; runs on the learner's ranks."""

from __future__ import annotations

import itertools

import numpy as np

from rlframe.training import PlannedSample, TrainSample
from rlframe.types import Completion, ScoredGroup, VersionSpan


def to_train_sample(planned: PlannedSample, body: ScoredGroup) -> TrainSample:
    """The sequence of a path from the root to a leaf of a trajectory; a chain has a single path.

    A turn that several paths share has weight and advantage in the first of them only:

        turns 0 - 1 and 0 - 2    path [0, 1] trains on turns 0 and 1, path [0, 2] on turn 2 only

    A token's advantage is that of the algorithm plus the token's own reward: no baseline, no later token's reward.
    """
    trajectory = body.group.trajectories[planned.trajectory]
    shared, trained = trajectory.paths()[planned.path]
    lengths = [len(trajectory.turns[turn].completion.token_ids) for turn in trained]
    advantages = np.broadcast_to(np.asarray(planned.advantage, np.float32), sum(lengths))
    turn_advantages = dict(zip(trained, np.split(advantages, list(itertools.accumulate(lengths))[:-1]), strict=True))
    token_rewards = body.token_rewards(planned.trajectory) if planned.has_token_rewards else None
    if token_rewards is not None:
        ends = itertools.accumulate(len(turn.completion.token_ids) for turn in trajectory.turns)
        rewards_of_turns = np.split(token_rewards, list(ends)[:-1])
        turn_advantages = {turn: values + rewards_of_turns[turn] for turn, values in turn_advantages.items()}
    columns: list[tuple[np.ndarray, ...]] = []
    for index in shared + trained:
        turn = trajectory.turns[index]
        columns += [
            _observed_columns(turn.observed),
            _sampled_columns(turn.completion, turn_advantages.get(index), planned.weight),
        ]
    token_ids, sampled, versions, rollout_logprobs, token_advantages, loss_weights = map(
        np.concatenate, zip(*columns, strict=True)
    )
    if planned.oldest_version is not None:
        loss_weights[versions < planned.oldest_version] = 0.0
    return TrainSample(
        prompt_id=planned.prompt_id,
        prefix_tokens=planned.prefix_tokens,
        token_ids=token_ids,
        sampled=sampled,
        rollout_logprobs=rollout_logprobs,
        advantages=token_advantages,
        loss_weights=loss_weights,
        mean_weights=loss_weights * np.float32(planned.mean_scale),
        versions=versions,
        routed_experts=trajectory.turns[trained[-1]].completion.routed_experts,
    )


def _sampled_columns(completion: Completion, advantages: np.ndarray | None, weight: float) -> tuple[np.ndarray, ...]:
    """token_ids, sampled, versions, rollout_logprobs, advantages, loss_weights of a completion, [L] each.

    `advantages`: None where another path trains on the completion.
    """
    length = len(completion.token_ids)
    zeros = np.zeros(length, np.float32)
    return (
        np.asarray(completion.token_ids, np.int32),
        np.ones(length, bool),
        _token_versions(completion.versions),
        np.asarray(completion.logprobs, np.float32),
        zeros if advantages is None else advantages,
        zeros if advantages is None else np.full(length, weight, np.float32),
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
