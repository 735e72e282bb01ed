"""The repetition penalty, computed by hand and against a count of tuples."""

import random
import time

import pytest

from rlframe.reward.repetition import Repetition, repeated_share
from rlframe.types import Completion, Prompt

PROMPT = Prompt(id="p", messages=[], token_ids=[], reference="", task="math")


def score(token_ids: list[int], ngram: int, free_share: float = 0.0) -> float:
    completion = Completion(token_ids=token_ids, logprobs=[], versions=[], text="", finish_reason="stop")
    return Repetition(name="repetition", weight=1.0, ngram=ngram, free_share=free_share)(PROMPT, completion)


@pytest.mark.parametrize(
    ("token_ids", "ngram", "expected"),
    [
        ([1, 2, 3, 4], 2, 0.0),
        ([1, 2, 1, 2], 2, -1 / 3),  # 12 21 12
        ([1, 2, 1, 2, 1], 2, -1 / 2),  # 12 21 12 21
        ([1, 2, 3, 1, 2, 3], 3, -1 / 4),  # 123 231 312 123
        ([1, 2, 3, 3, 2, 1], 2, 0.0),  # the order of an n-gram's tokens matters
        ([5, 5, 5, 5, 5], 1, -4 / 5),
        ([5, 5, 5, 5, 5], 5, 0.0),
        ([0, 0, 0, 1], 2, -1 / 3),  # token 0 counts like any other: 00 00 01
        ([1, 2], 3, 0.0),
        ([], 3, 0.0),
    ],
)
def test_the_score_is_minus_the_share_of_repeated_ngrams(token_ids: list[int], ngram: int, expected: float):
    assert score(token_ids, ngram) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("free_share", "expected"),
    [(0.0, -0.8), (0.2, -0.75), (0.6, -0.5), (0.8, 0.0), (0.9, 0.0)],  # (free - 0.8) / (1 - free)
)
def test_a_free_share_costs_nothing_and_the_rest_reaches_minus_one(free_share: float, expected: float):
    assert score([5] * 5, 1, free_share) == pytest.approx(expected)


def test_a_loop_of_8000_tokens_scores_nearly_minus_one_and_never_below():
    assert -1.0 <= score([3, 4] * 4000, 20) < -0.99


@pytest.mark.parametrize("ngram", [1, 2, 3, 8])
def test_hashes_count_what_a_set_of_tuples_counts(ngram: int):
    draw = random.Random(ngram)
    for vocabulary in (2, 10, 150_000):
        token_ids = [draw.randrange(vocabulary) for _ in range(500)]
        ngrams = list(zip(*[token_ids[start:] for start in range(ngram)], strict=False))
        assert repeated_share(token_ids, ngram) == pytest.approx(1 - len(set(ngrams)) / len(ngrams))


def test_100_completions_of_8000_tokens_take_about_a_second():
    draw = random.Random(0)
    token_ids = [draw.randrange(150_000) for _ in range(8000)]
    started = time.process_time()
    for _ in range(100):
        repeated_share(token_ids, 20)
    assert time.process_time() - started < 1.5  # 0.1 on a quiet core; tuples of tokens take 1.9
