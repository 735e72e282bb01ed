"""Values of rollouts as msgpack, and back: arrays travel as their bytes, nothing is pickled.

An encoded value is a list without field names, so a log of many completions stays small:

    SampledTokens(start=4, token_ids=[7, 8], logprobs=[-0.5, -1.0], versions=[VersionSpan(version=3, start=4, end=6)])
        -> [4, b"\\x07\\0\\0\\0\\x08\\0\\0\\0", b"\\0\\0\\0\\xbf\\0\\0\\x80\\xbf", [3, 4, 6]]
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeAlias, cast

import msgpack
import numpy as np

from rlframe.types import (
    Completion,
    Prompt,
    RewardTerm,
    RolloutGroup,
    SampledTokens,
    ScoredGroup,
    Trajectory,
    Turn,
    Verdict,
    VersionSpan,
)

Encoded: TypeAlias = list[Any]
TOKEN, LOGPROB = np.dtype("<i4"), np.dtype("<f4")
SURROGATES = "surrogatepass"  # a text may hold half of a surrogate pair


def to_bytes(encoded: Encoded) -> bytes:
    return cast(bytes, msgpack.packb(encoded, unicode_errors=SURROGATES))


def from_bytes(content: bytes) -> Encoded:
    """Raises ValueError for bytes that are no msgpack."""
    return msgpack.unpackb(content, unicode_errors=SURROGATES)


def encode_tokens(tokens: SampledTokens) -> Encoded:
    return [tokens.start, _bytes(tokens.token_ids, TOKEN), _bytes(tokens.logprobs, LOGPROB), _flat(tokens.versions)]


def decode_tokens(encoded: Encoded) -> SampledTokens:
    start, token_ids, logprobs, versions = encoded
    return SampledTokens(
        start=start,
        token_ids=np.frombuffer(token_ids, TOKEN),
        logprobs=np.frombuffer(logprobs, LOGPROB),
        versions=_spans(versions),
    )


def encode_completion(completion: Completion) -> Encoded:
    experts = completion.routed_experts
    return [
        _bytes(completion.token_ids, TOKEN),
        _bytes(completion.logprobs, LOGPROB),
        _flat(completion.versions),
        completion.text,
        completion.finish_reason,
        int(completion.cached_tokens),
        None if experts is None else [experts.dtype.str, list(experts.shape), experts.tobytes()],
    ]


def decode_completion(encoded: Encoded) -> Completion:
    token_ids, logprobs, versions, text, finish_reason, cached_tokens, experts = encoded
    return Completion(
        token_ids=np.frombuffer(token_ids, TOKEN),
        logprobs=np.frombuffer(logprobs, LOGPROB),
        versions=_spans(versions),
        text=text,
        finish_reason=finish_reason,
        cached_tokens=cached_tokens,
        routed_experts=None if experts is None else np.frombuffer(experts[2], experts[0]).reshape(experts[1]),
    )


def encode_verdicts(verdicts: dict[str, Verdict]) -> dict[str, Encoded]:
    """Reward name -> verdict, encoded."""
    return {name: _encode_verdict(verdict) for name, verdict in verdicts.items()}


def decode_verdicts(encoded: dict[str, Encoded]) -> dict[str, Verdict]:
    return {name: _decode_verdict(verdict) for name, verdict in encoded.items()}


def encode_group(scored: ScoredGroup, byte_of: Callable[[Completion], int | None]) -> Encoded:
    """A scored group. `byte_of`: where a completion stands in the same file already; None: encode it here.

    The prompt's tokens stand once, however many turns observe them.
    """
    prompt = scored.group.prompt
    prompt_tokens = np.asarray(prompt.token_ids, TOKEN)

    def encode_turn(turn: Turn) -> Encoded:
        observed = None if np.array_equal(turn.observed, prompt_tokens) else _bytes(turn.observed, TOKEN)
        byte = byte_of(turn.completion)
        return [turn.parent, observed, encode_completion(turn.completion) if byte is None else byte]

    return [
        _encode_prompt(prompt, prompt_tokens),
        [[encode_turn(turn) for turn in trajectory.turns] for trajectory in scored.group.trajectories],
        [_number(reward) for reward in scored.rewards],
        {name: [_encode_verdict(verdict) for verdict in row] for name, row in scored.verdicts.items()},
        {name: [float(term.weight), [float(score) for score in term.scores]] for name, term in scored.terms.items()},
    ]


def decode_group(encoded: Encoded, completion_at: Callable[[int], Completion]) -> ScoredGroup:
    """`completion_at`: reads the completion that `encode_group` has found at a byte."""
    prompt, trajectories, rewards, verdicts, terms = encoded
    prompt_tokens = np.frombuffer(prompt[2], TOKEN)

    def decode_turn(turn: Encoded) -> Turn:
        parent, observed, completion = turn
        return Turn(
            parent=parent,
            observed=prompt_tokens if observed is None else np.frombuffer(observed, TOKEN),
            completion=completion_at(completion) if isinstance(completion, int) else decode_completion(completion),
        )

    group = RolloutGroup(
        prompt=_decode_prompt(prompt),
        trajectories=[Trajectory(turns=[decode_turn(turn) for turn in turns]) for turns in trajectories],
    )
    return ScoredGroup(
        group=group,
        rewards=rewards,
        verdicts={name: [_decode_verdict(verdict) for verdict in row] for name, row in verdicts.items()},
        terms={name: RewardTerm(weight=weight, scores=scores) for name, (weight, scores) in terms.items()},
    )


def _encode_prompt(prompt: Prompt, tokens: np.ndarray) -> Encoded:
    extra = json.dumps(prompt.extra)  # JSON has integers of any size, msgpack has not
    return [prompt.id, prompt.messages, tokens.tobytes(), prompt.reference, prompt.task, extra]


def _decode_prompt(encoded: Encoded) -> Prompt:
    name, messages, tokens, reference, task, extra = encoded
    return Prompt(
        id=name,
        messages=messages,
        token_ids=np.frombuffer(tokens, TOKEN).tolist(),
        reference=reference,
        task=task,
        extra=json.loads(extra),
    )


def _encode_verdict(verdict: Verdict) -> Encoded:
    token_rewards = [] if verdict.token_rewards is None else [_bytes(verdict.token_rewards, LOGPROB)]
    return [_number(verdict.score), verdict.status, float(verdict.seconds), verdict.detail, *token_rewards]


def _decode_verdict(encoded: Encoded) -> Verdict:
    score, status, seconds, detail, *rest = encoded
    token_rewards = np.frombuffer(rest[0], LOGPROB) if rest else None
    return Verdict(score=score, status=status, seconds=seconds, detail=detail, token_rewards=token_rewards)


def _number(value: float | None) -> float | None:
    return None if value is None else float(value)


def _bytes(values: np.ndarray, dtype: np.dtype[Any]) -> bytes:
    return np.asarray(values, dtype).tobytes()


def _flat(versions: list[VersionSpan]) -> list[int]:
    return [int(number) for span in versions for number in (span.version, span.start, span.end)]


def _spans(flat: list[int]) -> list[VersionSpan]:
    spans = zip(flat[::3], flat[1::3], flat[2::3], strict=True)
    return [VersionSpan(version=version, start=start, end=end) for version, start, end in spans]
