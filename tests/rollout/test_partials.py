"""Tokens of unfinished completions: cut, joined, sent in flat arrays, and checked at the door."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rlframe.rollout.door import problem_with, problem_with_tokens
from rlframe.rollout.messages import Order
from rlframe.rollout.partials import Partials
from rlframe.rollout.requests import request_seed
from rlframe.rollout.unfinished import Unfinished
from rlframe.types import Completion, Prompt, SampledCompletion, SampledTokens, Sampling, VersionSpan, merged
from tests.tiny.groups import plain


def chunk(start: int, token_ids: list[int], *spans: tuple[int, int, int]) -> SampledTokens:
    """Token 5 has the log-probability -5."""
    return SampledTokens(
        start=start,
        token_ids=np.array(token_ids, np.int32),
        logprobs=-np.array(token_ids, np.float32),
        versions=[VersionSpan(version=version, start=first, end=last) for version, first, last in spans],
    )


WHOLE = chunk(0, [11, 12, 13, 14, 15], (3, 0, 2), (4, 2, 5))


def test_chunks_that_are_cut_anywhere_join_to_the_whole() -> None:
    for cut in range(6):
        first = chunk(
            0, [11, 12, 13, 14, 15][:cut], *[span for span in [(3, 0, min(cut, 2)), (4, 2, cut)] if cut > span[1]]
        )
        rest = WHOLE.since(cut)
        assert (rest.start, rest.end) == (cut, 5)
        assert plain([SampledTokens.joined([first, rest])]) == plain([WHOLE])
    assert WHOLE.since(9).start == 5


def test_neighbours_of_the_same_version_are_one_span() -> None:
    spans = [VersionSpan(version=version, start=n, end=n + 1) for n, version in enumerate([3, 3, 4, 3])]
    assert [(span.version, span.start, span.end) for span in merged(spans)] == [(3, 0, 2), (4, 2, 3), (3, 3, 4)]


def test_partials_are_flat_arrays_that_split_into_the_parts() -> None:
    parts = [
        (("a", "o3@0", 2), chunk(5, [11, 12], (3, 5, 6), (4, 6, 7))),
        (("b", "o7@0", 0), chunk(9, [4], (4, 9, 10))),
    ]
    partials = Partials.of(parts)
    assert (partials.starts.tolist(), partials.ends.tolist()) == ([5, 9], [2, 3])
    assert (partials.token_ids.tolist(), partials.versions.tolist()) == ([11, 12, 4], [3, 4, 4])
    assert plain(list(partials.split())) == plain(parts)


UNFIT = "its arrays do not fit each other"
ASKED_TWICE = [("a", "p", 0), ("a", "p", 1)]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({}, None),
        ({"token_ids": np.array([1, -1, 2], np.int32)}, "a token id or a policy version is out of range"),
        ({"versions": np.array([3, 4, 6], np.int32)}, "a token id or a policy version is out of range"),
        ({"logprobs": np.array([-1, np.nan, -1], np.float32)}, "token 1 has the log-probability nan"),
        ({"logprobs": np.array([-1, -1, 0.5], np.float32)}, "token 2 has the log-probability 0.5"),
        ({"versions": np.zeros(0, np.int32)}, UNFIT),
        ({"logprobs": np.full(2, -1, np.float32)}, UNFIT),
        ({"logprobs": np.full(3, -1, np.int32)}, UNFIT),
        ({"token_ids": np.array([[1], [2], [3]], np.int32)}, UNFIT),
        ({"ends": np.array([4], np.int32)}, UNFIT),
        ({"ends": np.array([5, 3], np.int32), "starts": np.zeros(2, np.int32), "completions": ASKED_TWICE}, UNFIT),
        ({"starts": np.array([-1], np.int32)}, UNFIT),
        ({"completions": []}, UNFIT),
        ({"starts": np.array([6], np.int32)}, "completion 0 of prompt 'p' has 9 tokens, more than max_tokens=8"),
        ({"completions": [("a", "p")]}, "they are no tokens: ValueError: not enough values to unpack"),
        ({"completions": [("a", [], 0)]}, "they are no tokens: TypeError: unhashable type: 'list'"),
        ({"versions": None}, "they are no tokens: AttributeError: 'NoneType' object has no attribute"),
    ],
)
def test_no_nonsense_is_kept_to_go_on_after(change: dict[str, Any], problem: str | None) -> None:
    partials = Partials.of([(("a", "p", 0), chunk(0, [1, 2, 3], (3, 0, 2), (5, 2, 3)))])
    found = problem_with_tokens(replace(partials, **change), newest=5, longest={"a": 8})
    assert found == problem if problem is None else found is not None and found.startswith(problem)


def continued(**changes: Any) -> str | None:
    """The problem of a completion that was to go on after [11, 12, 13], with an engine of version 4."""
    completion = Completion(
        token_ids=WHOLE.token_ids, logprobs=WHOLE.logprobs, versions=WHOLE.versions, text="", finish_reason="stop"
    )
    sampled = SampledCompletion(prompt_id="p", index=1, completion=replace(completion, **changes))
    prefixes = {"p": {1: chunk(0, [11, 12, 13], (3, 0, 2), (4, 2, 3))}}
    sampling = Sampling(completions=2, max_tokens=8, temperature=1.0, seed=0)
    return problem_with(sampled, {"p": {0, 1}}, sampling, (4, 5), prefixes)


def test_the_door_lets_in_a_completion_that_begins_as_it_was_to() -> None:
    assert continued() is None
    other = "its first 3 tokens are not the 3 tokens after which the engine was to go on"
    assert continued(token_ids=np.array([11, 12, 99, 14, 15], np.int32)) == other
    assert continued(logprobs=WHOLE.logprobs - np.array([0, 0, 1, 0, 0], np.float32)) == other
    assert continued(versions=chunk(0, [], (3, 0, 1), (4, 1, 5)).versions) == other
    assert continued(
        token_ids=WHOLE.token_ids[3:], logprobs=WHOLE.logprobs[3:], versions=chunk(0, [], (4, 0, 2)).versions
    )
    assert continued(versions=chunk(0, [], (3, 0, 5)).versions) == (
        "tokens have policy version 3, but the engine had 4 and the newest is 5"
    )


def test_told_tokens_that_overlap_are_added_once_and_gaps_are_ignored() -> None:
    prompt = Prompt(id="p", messages=[], token_ids=[1], reference="", task="math")
    order = Order(key="p#1", prompt=prompt, sampling=Sampling(completions=1, max_tokens=8, temperature=1.0, seed=0))
    completion = Unfinished.of(order, 0, None)
    assert completion.extend(chunk(1, [12], (3, 1, 2))) is None
    assert plain([completion.extend(WHOLE.since(0))]) == plain([WHOLE])
    assert completion.extend(chunk(3, [14, 15], (4, 3, 5))) is None
    new = completion.extend(chunk(4, [15, 16], (4, 4, 6)))
    assert new is not None and (new.start, new.token_ids.tolist()) == (5, [16])
    completion.begin_attempt()
    assert completion.given is not None and completion.given.token_ids.tolist() == [11, 12, 13, 14, 15, 16]


def test_a_continued_completion_has_a_seed_of_its_own() -> None:
    assert request_seed(5, "arithmetic/7@0", 3) == request_seed(5, "arithmetic/7@0", 3, first=0)
    assert len({request_seed(5, "arithmetic/7@0", 3, first) for first in range(100)}) == 100
