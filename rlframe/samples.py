"""Scored groups -> training samples -> shares per rank -> packed batches. Pure, on the driver's CPU."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from rlframe.errors import RunFailed
from rlframe.learner.objective import Objective
from rlframe.types import Completion, Prompt, ScoredGroup, TrainBatch, TrainSample

if TYPE_CHECKING:
    from rlframe.algorithm import Algorithm


def to_samples(groups: list[ScoredGroup], algorithm: Algorithm) -> list[TrainSample]:
    """The samples of a step that is one update: see `to_minibatches`."""
    return to_minibatches(groups, Objective(algorithm=algorithm), 1)[0]


def to_minibatches(groups: list[ScoredGroup], objective: Objective, count: int) -> list[list[TrainSample]]:
    """[count or fewer][samples]: a step's groups in `count` equal parts, each with weights of its own, so that its
    loss is its mean; parts in which nothing has a reward are left out.

    One sample a completion that has a reward. A completion of advantage 0 counts in the weights of the others, but
    is no sample where the objective says that its gradient is 0; if that is so of all, all are kept, so that the
    step is still measured. A completion without a verdict is in neither its group's baseline nor the loss; a group
    with fewer than two verdicts has no baseline and is left out whole. Raises RunFailed, with a reward's own words,
    when nothing is left.
    """
    rows = step_advantages(groups, objective.algorithm)
    bounds = [len(groups) * part // count for part in range(count + 1)]
    parts = [
        _part(groups[start:end], rows[start:end], objective.algorithm) for start, end in itertools.pairwise(bounds)
    ]
    if not any(parts):
        raise RunFailed(_nothing_to_learn(groups))
    if objective.skips_zero_advantage:
        parts = [[sample for sample in part if sample.advantages.any()] or part for part in parts]
    return [part for part in parts if part]


def _part(groups: list[ScoredGroup], rows: list[list[float | None]], algorithm: Algorithm) -> list[TrainSample]:
    scored = [
        (group.group.prompt, completion, advantage)
        for group, row in zip(groups, rows, strict=True)
        for completion, advantage in zip(group.group.completions, row, strict=True)
        if advantage is not None
    ]
    if not scored:
        return []
    lengths = torch.tensor([len(completion.token_ids) for _, completion, _ in scored], dtype=torch.float32)
    weights = algorithm.token_weights(lengths).tolist()
    return [
        _sample(prompt, completion, advantage, weight)
        for (prompt, completion, advantage), weight in zip(scored, weights, strict=True)
    ]


def step_advantages(groups: list[ScoredGroup], algorithm: Algorithm) -> list[list[float | None]]:
    """[P][G]: those of each group, normalised over the step where the algorithm does so; None as in a group's."""
    rows = [group_advantages(group, algorithm) for group in groups]
    known = torch.tensor([advantage for row in rows for advantage in row if advantage is not None])
    normalised = iter(algorithm.over_step(known).tolist())
    return [[None if advantage is None else next(normalised) for advantage in row] for row in rows]


def group_advantages(group: ScoredGroup, algorithm: Algorithm) -> list[float | None]:
    """[G], None for completions that no loss sees: without a reward, without a token, or alone in their group."""
    usable = [
        reward is not None and bool(completion.token_ids)
        for completion, reward in zip(group.group.completions, group.rewards, strict=True)
    ]
    if sum(usable) < 2:
        return [None] * len(usable)
    rewards = [reward for reward, use in zip(group.rewards, usable, strict=True) if use]
    advantages = iter(algorithm.advantages(torch.tensor(rewards, dtype=torch.float32)).tolist())
    return [next(advantages) if use else None for use in usable]


def has_signal(group: ScoredGroup) -> bool:
    """Whether a group's rewards differ, so that its advantages are not all 0."""
    return len({reward for reward in group.rewards if reward is not None}) > 1


def shard(samples: list[TrainSample], ranks: int, max_tokens: int) -> list[list[list[TrainSample]]]:
    """[ranks][micro-batches][samples], at most `max_tokens` tokens in a micro-batch.

    Every rank has the same number of micro-batches (ZeRO-3 ranks gather parameters in lockstep) and nearly
    the same number of tokens: the longest sample goes first, always to the emptiest micro-batch. Where there
    are fewer samples than places, a place gets a copy of the shortest with weight 0.

    Raises ValueError when one sample is longer than `max_tokens`.
    """
    longest_first = sorted(samples, key=lambda sample: (-len(sample.token_ids), sample.prompt_id))
    if len(longest_first[0].token_ids) > max_tokens:
        raise ValueError(
            f"a sequence of prompt {longest_first[0].prompt_id} has {len(longest_first[0].token_ids)} tokens, "
            f"more than learner.micro_batch_tokens={max_tokens}: raise it, or lower rollout.max_tokens"
        )
    total = sum(len(sample.token_ids) for sample in samples)
    per_rank = max(1, math.ceil(total / (ranks * max_tokens)))
    while (bins := _pack(longest_first, ranks * per_rank, max_tokens)) is None:
        per_rank += 1
    filled = [bin or [_weightless(longest_first[-1])] for bin in bins]
    return [filled[rank::ranks] for rank in range(ranks)]


def collate(samples: list[TrainSample]) -> TrainBatch:
    """Samples end to end, without padding."""

    def packed(field: str, dtype: torch.dtype) -> torch.Tensor:
        return torch.from_numpy(np.concatenate([getattr(sample, field) for sample in samples])).to(dtype)

    lengths = torch.tensor([len(sample.token_ids) for sample in samples])
    rollout_logprobs = packed("rollout_logprobs", torch.float32)
    return TrainBatch(
        token_ids=packed("token_ids", torch.int64),
        rollout_logprobs=rollout_logprobs,
        old_logprobs=rollout_logprobs,
        ref_logprobs=None,
        advantages=packed("advantages", torch.float32),
        loss_weights=packed("loss_weights", torch.float32),
        sequence_ids=torch.repeat_interleave(torch.arange(len(samples)), lengths),
        position_ids=torch.cat([torch.arange(int(length)) for length in lengths]),
    )


def _sample(prompt: Prompt, completion: Completion, advantage: float, weight: float) -> TrainSample:
    before, drawn = len(prompt.token_ids), len(completion.token_ids)

    def aligned(values: list[float] | np.ndarray) -> np.ndarray:  # [drawn] -> [before + drawn], 0 at the prompt
        return np.concatenate([np.zeros(before, np.float32), np.asarray(values, np.float32)])

    return TrainSample(
        prompt_id=prompt.id,
        token_ids=np.asarray(prompt.token_ids + completion.token_ids, np.int32),
        rollout_logprobs=aligned(completion.logprobs),
        advantages=aligned(np.full(drawn, advantage)),
        loss_weights=aligned(np.full(drawn, weight)),
    )


def _pack(longest_first: list[TrainSample], count: int, max_tokens: int) -> list[list[TrainSample]] | None:
    bins: list[list[TrainSample]] = [[] for _ in range(count)]
    fill = [0] * count
    for sample in longest_first:
        emptiest = fill.index(min(fill))
        fill[emptiest] += len(sample.token_ids)
        if fill[emptiest] > max_tokens:
            return None
        bins[emptiest].append(sample)
    return bins


def _weightless(sample: TrainSample) -> TrainSample:
    return TrainSample(
        prompt_id=sample.prompt_id,
        token_ids=sample.token_ids,
        rollout_logprobs=sample.rollout_logprobs,
        advantages=sample.advantages,
        loss_weights=np.zeros_like(sample.loss_weights),
    )


def _nothing_to_learn(groups: list[ScoredGroup]) -> str:
    details = [v.detail for g in groups for of_name in g.verdicts.values() for v in of_name if v.status == "failed"]
    because = f"{len(details)} verdicts failed; the first: {details[0]}" if details else "every completion is empty"
    return f"none of {len(groups)} groups has two completions with a reward: {because}"
