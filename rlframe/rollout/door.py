"""The door of an episode worker: checks each completion that an engine sends, before a reward or a learner sees it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from operator import index
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias, get_args

import numpy as np

from rlframe.types import Completion, FinishReason, SampledCompletion, SampledTokens, Sampling, merged

if TYPE_CHECKING:
    from rlframe.rollout.partials import Partials

Prefixes: TypeAlias = Mapping[str, Mapping[int, SampledTokens]]  # prompt id -> index -> tokens of earlier attempts

# A log-probability is a logit minus the logarithm of a sum that is at least as large, so it is at most 0, and exactly 0
# for a certain token. In float32 the difference of logits up to 1,000 rounds by up to 6e-5.
LARGEST_LOGPROB = 1e-4
SHOWN = 80  # characters of a value in a problem


def problem_with(
    sampled: SampledCompletion,
    wanted: Mapping[str, Collection[int]],
    sampling: Sampling,
    versions: tuple[int, int],
    prefixes: Prefixes = MappingProxyType({}),
) -> str | None:
    """The reason to refuse a completion, whatever it holds, or None.

    `wanted`: prompt id -> indices of the completions that the engine still owes. `versions`: the engine's policy
    version when it was asked, and the newest version that the run has published. `prefixes`: with which it was asked.
    """
    try:
        if problem := _stranger(sampled, wanted):
            return problem
        prefix = prefixes.get(sampled.prompt_id, {}).get(sampled.index)
        return _malformed(sampled.completion, sampling, versions, prefix)
    except Exception as error:  # an attribute or a type that no completion has
        return f"it is no completion: {type(error).__name__}: {error}"[:SHOWN]


def problem_with_tokens(
    partials: Partials, newest: int, longest: Mapping[str, int] = MappingProxyType({})
) -> str | None:
    """The reason to refuse the tokens of unfinished completions, whatever they hold, or None.

    `newest`: version that the run has. `longest`: name of a call -> its max_tokens.
    """
    try:
        return _bad_tokens(partials, newest, longest)
    except Exception as error:  # an attribute or a type that no tokens have
        return f"they are no tokens: {type(error).__name__}: {error}"[:SHOWN]


def _stranger(sampled: SampledCompletion, wanted: Mapping[str, Collection[int]]) -> str | None:
    if sampled.prompt_id not in wanted:
        return f"nobody asked for a completion of prompt {sampled.prompt_id!r:.{SHOWN}}"
    if not isinstance(sampled.index, int) or sampled.index not in wanted[sampled.prompt_id]:
        return f"nobody waits for completion {sampled.index!r:.{SHOWN}}: it was not asked for, or came before"
    return None


def _malformed(
    completion: Completion, sampling: Sampling, versions: tuple[int, int], prefix: SampledTokens | None
) -> str | None:
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
    if problem := _bad_logprob(logprobs):
        return problem
    if completion.finish_reason not in get_args(FinishReason):
        return f"its finish reason is {completion.finish_reason!r:.{SHOWN}}"
    if not isinstance(completion.text, str):
        return f"its text is a {type(completion.text).__name__}"
    begin = prefix.end if prefix else 0
    return _bad_versions(completion, tokens, versions, begin) or (prefix and _other_begin(completion, prefix))


def _bad_tokens(partials: Partials, newest: int, longest: Mapping[str, int]) -> str | None:
    tokens, count = partials.token_ids, len(partials.completions)
    rows = [partials.starts, partials.ends, tokens, partials.versions, partials.logprobs]
    shapes = [(count,)] * 2 + [(len(tokens),)] * 3
    if [row.shape for row in rows] != shapes or "".join(row.dtype.kind for row in rows) != "iiiif":
        return "its arrays do not fit each other"
    lengths = np.diff(partials.ends, prepend=0)
    if lengths.sum() != len(tokens) or min(lengths.min(initial=0), partials.starts.min(initial=0)) < 0:
        return "its arrays do not fit each other"
    ends = dict(zip(partials.completions, (partials.starts + lengths).tolist(), strict=True))
    for (call, prompt_id, place), end in ends.items():
        if end > longest.get(call, end):
            return f"completion {place} of prompt {prompt_id!r} has {end} tokens, more than max_tokens={longest[call]}"
    versions = partials.versions
    if len(tokens) and (tokens.min() < 0 or versions.min() < 0 or versions.max() > newest):
        return "a token id or a policy version is out of range"
    return _bad_logprob(partials.logprobs)


def _bad_logprob(logprobs: np.ndarray) -> str | None:
    if not len(logprobs) or (-np.inf < logprobs.min() and logprobs.max() <= LARGEST_LOGPROB):  # false for NaN as well
        return None
    wrong = int(np.argmin((logprobs > -np.inf) & (logprobs <= LARGEST_LOGPROB)))
    return f"token {wrong} has the log-probability {logprobs[wrong]}"


def _bad_versions(completion: Completion, tokens: int, versions: tuple[int, int], begin: int) -> str | None:
    """`begin`: first token that the engine has sampled itself."""
    asked, newest = versions
    covered = 0
    for span in completion.versions:
        version, start, end = index(span.version), index(span.start), index(span.end)
        if start != covered or end < start:
            return f"its policy versions have the span [{start}, {end}) after {covered} tokens"
        if end > begin and not asked <= version <= newest:
            return f"tokens have policy version {version}, but the engine had {asked} and the newest is {newest}"
        covered = end
    return None if covered == tokens else f"its policy versions span {covered} of its {tokens} tokens"


def _other_begin(completion: Completion, prefix: SampledTokens) -> str | None:
    """The problem of a completion that does not begin with the tokens after which the engine was to go on."""
    given = prefix.end
    spans = [span for span in completion.versions if span.start < given]
    begin = [(span.version, span.start, min(span.end, given)) for span in spans]
    if (
        np.array_equal(completion.token_ids[:given], prefix.token_ids)
        and np.array_equal(completion.logprobs[:given], prefix.logprobs)
        and begin == [(span.version, span.start, span.end) for span in merged(prefix.versions)]
    ):
        return None
    return f"its first {given} tokens are not the {given} tokens after which the engine was to go on"
