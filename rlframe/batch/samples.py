"""Scored groups -> training samples -> shares per rank -> packed batches. Pure, on the driver's CPU."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from rlframe.batch.packing import Item, pack
from rlframe.errors import RunFailed
from rlframe.objective import Objective
from rlframe.types import OWN_CHOICE, Completion, Prompt, ScoredGroup, TrainBatch, TrainSample

if TYPE_CHECKING:
    from rlframe.algorithm import Algorithm

WORTH_SHARING = 1 / 16  # of a sequence: what prompts must begin alike with for the learner to compute it once


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


def to_probes(groups: list[ScoredGroup]) -> dict[tuple[int, int], TrainSample]:
    """(p, g) -> completion g of group p, for each that has a reward and a token, as a sample to be looked at only."""
    return {
        (p, g): _sample(group.group.prompt, completion, advantage=0.0, weight=1.0)
        for p, group in enumerate(groups)
        for g, (completion, reward) in enumerate(zip(group.group.completions, group.rewards, strict=True))
        if reward is not None and completion.token_ids
    }


def deduct(groups: list[ScoredGroup], penalties: dict[tuple[int, int], float]) -> list[ScoredGroup]:
    """The groups with `penalties` (p, g) taken off their rewards."""
    return [
        replace(
            group,
            rewards=[
                None if reward is None else reward - penalties.get((p, g), 0.0)
                for g, reward in enumerate(group.rewards)
            ],
        )
        for p, group in enumerate(groups)
    ]


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


def shard(
    samples: list[TrainSample], ranks: int, max_tokens: int, share_prompts: bool = True
) -> list[list[list[TrainSample]]]:
    """[ranks][micro-batches][samples], at most `max_tokens` tokens in a micro-batch once it is collated.

    Every rank has the same number of micro-batches (ZeRO-3 ranks gather parameters in lockstep) and nearly
    the same number of tokens. Where there are fewer samples than places, a place gets a copy of the shortest
    with weight 0.

    Raises ValueError when one sample is longer than `max_tokens`.
    """
    longest_first = sorted(samples, key=lambda sample: (-len(sample.token_ids), sample.prompt_id))
    if len(longest_first[0].token_ids) > max_tokens:
        raise ValueError(
            f"a sequence of prompt {longest_first[0].prompt_id} has {len(longest_first[0].token_ids)} tokens, "
            f"more than learner.micro_batch_tokens={max_tokens}: raise it, or lower rollout.max_tokens"
        )
    shares = pack([_item(at, sample, share_prompts) for at, sample in enumerate(longest_first)], ranks, max_tokens)
    filler = _weightless(longest_first[-1])

    def together(batch: list[Item]) -> list[TrainSample]:
        return sorted((longest_first[item.index] for item in batch), key=_by_prompt) or [filler]

    return [[together(batch) for batch in share] for share in shares]


def collate(samples: list[TrainSample], share_prompts: bool = True) -> TrainBatch:
    """Samples end to end, without padding; sequence i is sample i.

    With `share_prompts`, a prompt that follows itself is not repeated: samples of one prompt that stand together
    hold it once, in the first of them, and that one without what prompts before it begin with, such as a system's
    message. (Attention that takes whole sequences only wants each by itself.)
    """
    begins = _begins(samples, share_prompts)

    def packed(field: str, dtype: torch.dtype) -> torch.Tensor:
        parts = [getattr(sample, field)[begin:] for sample, begin in zip(samples, begins, strict=True)]
        return torch.from_numpy(np.concatenate(parts)).to(dtype)

    ends = [len(sample.token_ids) for sample in samples]
    lengths = torch.tensor([end - begin for begin, end in zip(begins, ends, strict=True)])
    rollout_logprobs = packed("rollout_logprobs", torch.float32)
    return TrainBatch(
        token_ids=packed("token_ids", torch.int64),
        rollout_logprobs=rollout_logprobs,
        old_logprobs=rollout_logprobs,
        ref_logprobs=None,
        advantages=packed("advantages", torch.float32),
        loss_weights=packed("loss_weights", torch.float32),
        sequence_ids=torch.repeat_interleave(torch.arange(len(samples)), lengths),
        position_ids=torch.cat([torch.arange(begin, end) for begin, end in zip(begins, ends, strict=True)]),
        routed_experts=_routes(samples, begins),
    )


def packed_tokens(samples: list[TrainSample], share_prompts: bool = True) -> int:
    """How many tokens `collate` makes of `samples`."""
    return sum(len(sample.token_ids) for sample in samples) - sum(_begins(samples, share_prompts))


def _routes(samples: list[TrainSample], begins: list[int]) -> torch.Tensor | None:
    """[T, layers, k] int16, OWN_CHOICE where a sample's engine did not tell; None when none did."""
    told = next((sample.routed_experts for sample in samples if sample.routed_experts is not None), None)
    if told is None:
        return None
    packed = []
    for sample, begin in zip(samples, begins, strict=True):
        routes = np.full((len(sample.token_ids), *told.shape[1:]), OWN_CHOICE, np.int16)
        if sample.routed_experts is not None:
            routes[: len(sample.routed_experts)] = sample.routed_experts
        packed.append(routes[begin:])
    return torch.from_numpy(np.concatenate(packed))


def _sample(prompt: Prompt, completion: Completion, advantage: float, weight: float) -> TrainSample:
    before, drawn = len(prompt.token_ids), len(completion.token_ids)

    def aligned(values: list[float] | np.ndarray) -> np.ndarray:  # [drawn] -> [before + drawn], 0 at the prompt
        return np.concatenate([np.zeros(before, np.float32), np.asarray(values, np.float32)])

    return TrainSample(
        prompt_id=prompt.id,
        prompt_tokens=before,
        token_ids=np.asarray(prompt.token_ids + completion.token_ids, np.int32),
        rollout_logprobs=aligned(completion.logprobs),
        advantages=aligned(np.full(drawn, advantage)),
        loss_weights=aligned(np.full(drawn, weight)),
        routed_experts=completion.routed_experts,
    )


def _item(at: int, sample: TrainSample, share_prompts: bool) -> Item:
    """Where prompts are not shared, every sample is a group of its own."""
    if share_prompts:
        own = len(sample.token_ids) - sample.prompt_tokens
        return Item(index=at, group=sample.prompt_id, shared=sample.prompt_tokens, own=own)
    return Item(index=at, group=str(at), shared=0, own=len(sample.token_ids))


def _weightless(sample: TrainSample) -> TrainSample:
    return replace(sample, loss_weights=np.zeros_like(sample.loss_weights))


def _by_prompt(sample: TrainSample) -> tuple[bytes, str]:
    """Sorts those of one prompt side by side, and prompts that begin alike, as `collate` wants them."""
    return sample.token_ids[: sample.prompt_tokens].tobytes(), sample.prompt_id


def _begins(samples: list[TrainSample], share_prompts: bool) -> list[int]:
    """[N] the first token that each holds itself."""
    if not share_prompts:
        return [0] * len(samples)
    return [0, *(_begin(sample, before) for before, sample in itertools.pairwise(samples))]


def _begin(sample: TrainSample, before: TrainSample) -> int:
    """The token after all of its prompt that the sample before it has as well, where that is worth it."""
    if sample.prompt_id == before.prompt_id:
        return sample.prompt_tokens
    longest = min(sample.prompt_tokens, len(before.token_ids))
    differing = np.flatnonzero(sample.token_ids[:longest] != before.token_ids[:longest])
    alike = int(differing[0]) if len(differing) else longest
    return alike if alike >= WORTH_SHARING * len(sample.token_ids) else 0


def _nothing_to_learn(groups: list[ScoredGroup]) -> str:
    details = [v.detail for g in groups for of_name in g.verdicts.values() for v in of_name if v.status == "failed"]
    because = f"{len(details)} verdicts failed; the first: {details[0]}" if details else "every completion is empty"
    return f"none of {len(groups)} groups has two completions with a reward: {because}"
