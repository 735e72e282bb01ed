"""Values of rollouts come back from bytes as they were."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rlframe.record.codec import (
    decode_completion,
    decode_group,
    decode_tokens,
    encode_completion,
    encode_group,
    encode_tokens,
    from_bytes,
    to_bytes,
)
from rlframe.types import Completion, Prompt, RewardTerm, SampledTokens, ScoredGroup, Verdict, VersionSpan
from tests.tiny.groups import (
    make_completion,
    make_group,
    make_multi_turn_group,
    make_turn,
    make_verdict,
    plain,
    with_token_rewards,
)

SPANS = [VersionSpan(version=3, start=4, end=5), VersionSpan(version=4, start=5, end=6)]


def again(scored: ScoredGroup) -> ScoredGroup:
    """The group after a way through bytes."""

    def nowhere(byte: int) -> Completion:
        raise AssertionError(f"the completion is at byte {byte}")

    return decode_group(from_bytes(to_bytes(encode_group(scored, lambda completion: None))), nowhere)


def test_the_bytes_of_tokens_are_those_of_the_docstring():
    tokens = SampledTokens(
        start=4, token_ids=np.array([7, 8], np.int32), logprobs=np.array([-0.5, -1.0], np.float32), versions=SPANS[:1]
    )
    assert encode_tokens(tokens) == [4, b"\7\0\0\0\x08\0\0\0", b"\0\0\0\xbf\0\0\x80\xbf", [3, 4, 5]]
    assert plain(decode_tokens(encode_tokens(tokens))) == plain(tokens)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, ">i2"])
def test_routed_experts_keep_type_and_shape(dtype: Any):
    experts = np.arange(2 * 3 * 4).reshape(2, 3, 4).astype(dtype)
    completion = replace(make_completion(3), routed_experts=experts, cached_tokens=16, text="half a pair: \ud83d")
    decoded = decode_completion(from_bytes(to_bytes(encode_completion(completion))))
    assert decoded.routed_experts is not None
    assert (decoded.routed_experts.dtype, decoded.routed_experts.shape) == (experts.dtype, (2, 3, 4))
    assert plain(decoded) == plain(completion)


def test_a_group_keeps_failed_verdicts_terms_and_an_empty_completion():
    scored = make_group([1.0, None, 0.0], [2, 3, 0], name="p@0", cut_off=[1])
    scored = replace(scored, terms={"math": RewardTerm(weight=0.5, scores=[1.0, 0.0, 0.0])})
    assert [verdict.status for verdict in scored.verdicts["math"]] == ["scored", "failed", "scored"]
    assert plain(again(scored)) == plain(scored)


def test_a_tree_of_turns_keeps_parents_and_what_each_turn_observes():
    tree = [
        make_turn(None, [1, 2], [3, 4]),
        make_turn(0, [5], [6]),
        make_turn(0, [], [7, 8, 9]),
        make_turn(2, [1], [2]),
    ]
    scored = make_multi_turn_group([tree, [make_turn(None, [1, 2], [9])]], [1.0, 0.0])
    assert plain(again(scored)) == plain(scored)


def test_numbers_of_other_types_come_back_as_plain_numbers():
    spans = [VersionSpan(version=np.int64(3), start=np.int32(0), end=np.int64(1))]  # type: ignore[arg-type]
    completion = replace(make_completion(1), versions=spans, cached_tokens=np.int64(2))
    decoded = decode_completion(from_bytes(to_bytes(encode_completion(completion))))
    assert decoded.versions == [VersionSpan(version=3, start=0, end=1)]
    scored = replace(make_group([1.0], [1]), verdicts={"math": [make_verdict(10**30)]}, rewards=[np.float64(0.1)])
    assert again(scored).verdicts["math"][0].score == 1e30
    assert again(scored).rewards == [0.1]


def test_extra_values_of_a_prompt_are_any_json():
    extra = {"large": 2**80, "nested": {"a": [1, None, 0.5, True, "é"]}, "tests": "{}"}
    messages = [{"role": "user", "content": "What is 2 + 3?"}]
    prompt = Prompt(id="p", messages=messages, token_ids=[1, 2], reference="5", task="math", extra=extra)
    scored = make_group([1.0], [1])
    scored = replace(scored, group=replace(scored.group, prompt=prompt))
    assert again(scored).group.prompt == prompt


def test_prompt_tokens_stand_once_in_a_group_of_any_size():
    sizes = [len(to_bytes(encode_group(make_group([1.0] * n, [0] * n, 10_000), lambda _: None))) for n in (1, 17)]
    assert sizes[1] - sizes[0] < 10_000


def test_a_verdict_with_seconds_and_detail_comes_back():
    verdict = Verdict(score=0.0, status="timeout", seconds=1.5, detail="case 7")
    scored = replace(make_group([0.0], [1]), verdicts={"code": [verdict]})
    assert again(scored).verdicts == {"code": [verdict]}


def test_a_verdict_keeps_the_rewards_of_tokens():
    scored = with_token_rewards(make_group([1.0, 0.0], [2, 1]), [[0.5, -0.25], None])
    assert plain(again(scored)) == plain(scored)
    assert [None if row is None else row.tolist() for row in map(again(scored).token_rewards, (0, 1))] == [
        [0.5, -0.25],
        None,
    ]
