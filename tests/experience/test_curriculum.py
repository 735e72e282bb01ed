"""Prompts by difficulty, for streams of a few problems in the order of the source."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from rlframe.errors import RunFailed
from rlframe.experience.curriculum import Curriculum
from rlframe.experience.ledger import Ledger
from rlframe.prompts.config import CurriculumConfig
from rlframe.types import Prompt, Skipped
from tests.tiny.groups import make_record

SOLVED, FAILED, MIXED = [1.0, 1.0], [0.0, 0.0], [1.0, 0.0]


def make_curriculum(
    problems: int = 10,
    solved_weight: float = 0.0,
    failed_weight: float = 1.0,
    prompts_per_step: int = 2,
    warn: Callable[[str], None] = print,
) -> Curriculum:
    return Curriculum(
        CurriculumConfig(solved_weight=solved_weight, failed_weight=failed_weight),
        lambda position: divmod(position, problems),
        problems=problems,
        prompts_per_step=prompts_per_step,
        reward="math",
        seed=0,
        warn=warn,
    )


def note(curriculum: Curriculum, outcomes: dict[int, list[float]]) -> None:
    for position, rewards in outcomes.items():
        curriculum.note(position, curriculum.outcome(make_record(rewards, [1, 1])))


def drawn(curriculum: Curriculum, epoch: int, problems: int = 10) -> list[int]:
    """Problems that an epoch draws."""
    return [index for index in range(problems) if curriculum.draws(epoch * problems + index)]


def test_a_solved_problem_rests_until_it_is_drawn_and_failed_again():
    curriculum = make_curriculum(solved_weight=0.0)
    assert drawn(curriculum, 0) == list(range(10))
    note(curriculum, {0: SOLVED, 1: FAILED, 2: MIXED})
    assert drawn(curriculum, 1) == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    note(curriculum, {12: SOLVED})
    assert drawn(curriculum, 2) == [1, 3, 4, 5, 6, 7, 8, 9]
    note(curriculum, {0: MIXED})  # a late group of epoch 0
    assert 0 in drawn(curriculum, 3)


def test_weights_are_the_probabilities_of_a_draw_in_each_epoch():
    curriculum = make_curriculum(problems=4000, solved_weight=0.25, failed_weight=0.75)
    note(curriculum, {index: SOLVED for index in range(2000)} | {index: FAILED for index in range(2000, 4000)})
    first, second = set(drawn(curriculum, 1, 4000)), set(drawn(curriculum, 2, 4000))
    for indices, probability in ((set(range(2000)), 0.25), (set(range(2000, 4000)), 0.75)):
        # Four standard deviations of a share of 2000 are below 0.04; epochs are independent.
        assert len(first & indices) / 2000 == pytest.approx(probability, abs=0.04)
        assert len(first & second & indices) / 2000 == pytest.approx(probability**2, abs=0.045)
    assert curriculum.metrics() == {"curriculum/solved": 0.5, "curriculum/failed": 0.5, "curriculum/skipped": 0.5}


def test_an_epoch_with_less_than_a_step_draws_all_and_says_so_once():
    lines: list[str] = []
    curriculum = make_curriculum(warn=lines.append)
    note(curriculum, {index: SOLVED for index in range(8)})
    assert drawn(curriculum, 1) == [8, 9]  # a step's prompts
    note(curriculum, {18: SOLVED})
    assert drawn(curriculum, 2) == drawn(curriculum, 3) == list(range(10))
    [line] = lines
    assert "of 10 problems 9 were solved by all completions and 0 by none" in line
    assert line.endswith("epoch 2: it draws every problem")
    note(curriculum, {index: MIXED for index in range(3)})
    assert drawn(curriculum, 4) == [0, 1, 2, 9]
    note(curriculum, {index: SOLVED for index in range(3)})
    drawn(curriculum, 5)
    assert len(lines) == 2


def test_problems_that_the_stream_skips_keep_no_epoch_alive():
    curriculum = make_curriculum()
    for index in range(8):
        curriculum.leave_out(index)
    note(curriculum, {8: SOLVED, 9: SOLVED})
    assert {8, 9} <= set(drawn(curriculum, 1))
    assert curriculum.metrics()["curriculum/skipped"] == pytest.approx(0.2)


def test_a_restored_curriculum_draws_the_same_problems():
    curriculum = make_curriculum(problems=50, solved_weight=0.5, failed_weight=0.5)
    note(curriculum, {index: [SOLVED, FAILED, MIXED][index % 3] for index in range(50)})
    for position in range(50, 80):  # in the middle of an epoch
        curriculum.draws(position)
    resumed = make_curriculum(problems=50, solved_weight=0.5, failed_weight=0.5)
    resumed.restore(json.loads(json.dumps(curriculum.state())))
    positions = range(80, 200)
    assert [resumed.draws(at) for at in positions] == [curriculum.draws(at) for at in positions]
    assert resumed.state() == curriculum.state()


def test_the_state_of_a_million_problems_is_below_a_megabyte():
    curriculum = make_curriculum(problems=1_000_000)
    note(curriculum, {index * 7919 % 1_000_000: [SOLVED, FAILED, MIXED][index % 3] for index in range(2000)})
    assert len(json.dumps(curriculum.state())) < 1_000_000


def test_a_state_of_another_number_of_problems_is_refused():
    with pytest.raises(RunFailed, match=r"curriculum is of 10 problems, and prompts\.train has 11"):
        make_curriculum(problems=11).restore(make_curriculum(problems=10).state())


def prompt_at(position: int) -> Prompt | Skipped:
    """Problem 5 of 6 is too long."""
    epoch, index = divmod(position, 6)
    if index == 5:
        return Skipped(id=f"p5@{epoch}", reason="overlong")
    return Prompt(id=f"p{index}@{epoch}", messages=[], token_ids=[1], reference="", task="math")


def make_ledger(dynamic_sampling: bool = False) -> Ledger:
    curriculum = make_curriculum(problems=6, solved_weight=0.0, failed_weight=0.0)
    return Ledger(prompts_per_step=2, max_staleness=0, dynamic_sampling=dynamic_sampling, curriculum=curriculum)


def steps(ledger: Ledger, count: int, solved: str = "") -> list[list[str]]:
    """Prompt ids that each step takes, when all completions solve the problems in `solved`."""
    taken = []
    for version in range(count):
        groups = None
        while groups is None:
            for attempt in ledger.admit(prompt_at, version, limit=9):
                rewards = SOLVED if attempt.prompt.id[1] in solved else MIXED
                ledger.record_score(attempt.key, make_record(rewards, [1, 1], name=attempt.prompt.id))
            ledger.drop_without_signal()
            groups = ledger.take(2, version)
        taken.append([group.prompt_id for group in groups])
    return taken


def test_the_ledger_admits_only_problems_that_are_drawn():
    ledger = make_ledger()
    first, second, third, fourth = steps(ledger, 4, solved="02")
    assert first + second == ["p0@0", "p1@0", "p2@0", "p3@0"]
    assert third + fourth == ["p4@0", "p1@1", "p3@1", "p4@1"]
    assert dict(ledger.skipped) == {"overlong": 1, "curriculum": 2}


def test_problems_dropped_for_lack_of_signal_rest_too():
    ledger = make_ledger(dynamic_sampling=True)
    first, second, third = steps(ledger, 3, solved="02")
    assert first + second + third == ["p1@0", "p3@0", "p4@0", "p1@1", "p3@1", "p4@1"]
    assert dict(ledger.skipped) == {"overlong": 1, "curriculum": 2}


def test_a_resumed_ledger_continues_with_the_same_prompts():
    uninterrupted, stopped = make_ledger(), make_ledger()
    expected = steps(uninterrupted, 8, solved="02")
    done = steps(stopped, 3, solved="02")
    stopped.admit(prompt_at, version=3, limit=9)  # in flight at the checkpoint
    resumed = make_ledger()
    resumed.restore(json.loads(json.dumps(stopped.state(version=3))))
    assert done + steps(resumed, 5, solved="02") == expected


def test_a_prompt_in_flight_is_admitted_again_whatever_its_outcome_was():
    ledger = make_ledger()
    ledger.admit(prompt_at, version=0, limit=9)
    state = json.loads(json.dumps(ledger.state(version=0)))
    ledger.curriculum.note(0, "solved")
    resumed = make_ledger()
    resumed.restore(state | {"curriculum": ledger.curriculum.state()})
    assert [attempt.prompt.id for attempt in resumed.admit(prompt_at, version=0, limit=9)] == ["p0@0", "p1@0"]
