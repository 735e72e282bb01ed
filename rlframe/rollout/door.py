"""The door of an episode worker: checks each completion that an engine sends, before a reward or a learner sees it."""

from __future__ import annotations

from collections.abc import Mapping
from operator import index
from typing import get_args

import numpy as np

from rlframe.types import Completion, FinishReason, SampledCompletion, Sampling

# A log-probability is a logit minus the logarithm of a sum that is at least as large, so it is at most 0, and exactly 0
# for a certain token. In float32 the difference of logits up to 1,000 rounds by up to 6e-5.
LARGEST_LOGPROB = 1e-4
SHOWN = 80  # characters of a value in a problem


def problem_with(
    sampled: SampledCompletion, wanted: Mapping[str, set[int]], sampling: Sampling, versions: tuple[int, int]
) -> str | None:
    """The reason to refuse a completion, whatever it holds, or None.

    `wanted`: prompt id -> indices of the completions that the engine still owes. `versions`: the engine's policy
    version when it was asked, and the newest version that the run has published.
    """
    try:
        return _stranger(sampled, wanted) or _malformed(sampled.completion, sampling, versions)
    except Exception as error:  # an attribute or a type that no completion has
        return f"it is no completion: {type(error).__name__}: {error}"[:SHOWN]


def _stranger(sampled: SampledCompletion, wanted: Mapping[str, set[int]]) -> str | None:
    if sampled.prompt_id not in wanted:
        return f"nobody asked for a completion of prompt {sampled.prompt_id!r:.{SHOWN}}"
    if not isinstance(sampled.index, int) or sampled.index not in wanted[sampled.prompt_id]:
        return f"nobody waits for completion {sampled.index!r:.{SHOWN}}: it was not asked for, or came before"
    return None


def _malformed(completion: Completion, sampling: Sampling, versions: tuple[int, int]) -> str | None:
    token_ids, logprobs = np.asarray(completion.token_ids), np.asarray(completion.logprobs)
    tokens = len(token_ids)
    if token_ids.shape != (tokens,) or token_ids.dtype.kind not in "iu":
        return f"its token ids are {token_ids.dtype} of shape {token_ids.shape}, not a row of integers"
    if logprobs.shape != (tokens,) or logprobs.dtype.kind != "f":
        return f"its {tokens} tokens have log-probabilities that are {logprobs.dtype} of shape {logprobs.shape}"
    if tokens > sampling.max_tokens:
        return f"it has {tokens} tokens, more than max_tokens={sampling.max_tokens}"
    if tokens and token_ids.min() < 0:
        return f"token {token_ids.argmin()} has the id {token_ids.min()}"
    if tokens and not (-np.inf < logprobs.min() and logprobs.max() <= LARGEST_LOGPROB):  # false for NaN as well
        wrong = int(np.argmin((logprobs > -np.inf) & (logprobs <= LARGEST_LOGPROB)))
        return f"token {wrong} has the log-probability {logprobs[wrong]}"
    if completion.finish_reason not in get_args(FinishReason):
        return f"its finish reason is {completion.finish_reason!r:.{SHOWN}}"
    if not isinstance(completion.text, str):
        return f"its text is a {type(completion.text).__name__}"
    return _bad_versions(completion, tokens, versions)


def _bad_versions(completion: Completion, tokens: int, versions: tuple[int, int]) -> str | None:
    asked, newest = versions
    covered = 0
    for span in completion.versions:
        version, start, end = index(span.version), index(span.start), index(span.end)
        if start != covered or end < start:
            return f"its policy versions have the span [{start}, {end}) after {covered} tokens"
        if not asked <= version <= newest:
            return f"tokens have policy version {version}, but the engine had {asked} and the newest is {newest}"
        covered = end
    return None if covered == tokens else f"its policy versions span {covered} of its {tokens} tokens"
