"""The choice among a prompt's candidates, worked out by hand."""

from rlframe.select.choices import Candidate, choose, pairs
from rlframe.select.config import Choice, GradePairs, LengthPairs, RandomChoice


def candidate(
    position: int, tokens: int = 10, *, right: bool | None = True, grades: tuple[float, ...] = ()
) -> Candidate:
    return Candidate(position, float(right or 0), tokens, right, position.to_bytes(16, "big"), grades)


def chosen(choice: Choice | RandomChoice, candidates: list[Candidate]) -> list[int]:
    return [candidate.position for candidate in choose(candidates, choice)]


def paired(choice: LengthPairs | GradePairs, candidates: list[Candidate]) -> list[tuple[int, int, float | None]]:
    return [(pair.chosen.position, pair.rejected.position, pair.margin) for pair in pairs(candidates, choice)]


MIXED = [candidate(0, 30), candidate(1, 20), candidate(2, 5, right=False), candidate(3, 29)]


def test_all_keeps_the_first_ones_of_the_input() -> None:
    assert chosen(Choice(name="all", per_prompt=None), MIXED) == [0, 1, 2, 3]
    assert chosen(Choice(name="all", per_prompt=2), MIXED) == [0, 1]


def test_best_takes_the_shorter_one_of_equal_rewards() -> None:
    assert chosen(Choice(name="best", per_prompt=2), MIXED) == [1, 3]


def test_shortest_takes_right_ones_only() -> None:
    assert chosen(Choice(name="shortest", per_prompt=1), MIXED) == [1]
    assert chosen(Choice(name="shortest", per_prompt=9), MIXED) == [1, 3, 0]


def test_a_seed_chooses_the_same_ones_in_any_order() -> None:
    choices = [chosen(RandomChoice(name="random", per_prompt=2, seed=seed), MIXED) for seed in range(20)]
    assert choices == [chosen(RandomChoice(name="random", per_prompt=2, seed=s), MIXED[::-1]) for s in range(20)]
    assert len({tuple(choice) for choice in choices}) > 5


def test_the_shortest_right_one_beats_wrong_and_long_ones() -> None:
    choice = LengthPairs(name="pairs", per_prompt=None, longer=1.5)
    assert paired(choice, MIXED) == [(1, 2, None), (1, 0, None)]  # 29 tokens are not 1.5 x 20
    assert paired(LengthPairs(name="pairs", per_prompt=None, longer=None), MIXED) == [(1, 2, None)]


def test_a_prompt_of_wrong_answers_makes_no_pair() -> None:
    assert paired(LengthPairs(name="pairs", per_prompt=None, longer=1.5), [candidate(0, right=False), MIXED[2]]) == []


def test_a_completion_without_verdict_is_not_wrong() -> None:
    choice = LengthPairs(name="pairs", per_prompt=None, longer=1.5)
    assert paired(choice, [candidate(0), candidate(1, right=None)]) == []


GRADES = GradePairs(name="grades", per_prompt=None, verdicts=["judge"], delta=1.0, length_ratio=1.5)


def test_a_candidate_is_in_one_graded_pair_at_most() -> None:
    graded = [candidate(0, grades=(3.0,)), candidate(1, grades=(5.0,)), candidate(2, grades=(4.0,))]
    assert paired(GRADES, graded) == [(1, 0, 2.0)]


def test_equal_grades_make_no_pair() -> None:
    assert paired(GRADES, [candidate(0, grades=(3.0,)), candidate(1, grades=(3.0,))]) == []


def test_graded_pairs_have_like_lengths() -> None:
    assert paired(GRADES, [candidate(0, 10, grades=(3.0,)), candidate(1, 16, grades=(5.0,))]) == []
    assert paired(GRADES, [candidate(0, 10, grades=(3.0,)), candidate(1, 15, grades=(5.0,))]) == [(1, 0, 2.0)]


def test_a_judge_asked_in_both_orders_must_agree() -> None:
    agreed, split = [candidate(0, grades=(3.0, 2.0)), candidate(1, grades=(5.0, 3.0))], (2.0, 4.0)
    assert paired(GRADES, agreed) == [(1, 0, 1.5)]
    assert paired(GRADES, [agreed[0], candidate(2, grades=split)]) == []


def test_a_failed_grade_pairs_with_nothing() -> None:
    nan = float("nan")
    for grades in [(nan, 9.0), (9.0, nan)]:
        assert paired(GRADES, [candidate(0, grades=(3.0, 2.0)), candidate(1, grades=grades)]) == []
