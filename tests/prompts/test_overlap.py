"""Training problems that are held out too."""

import pytest

from rlframe.prompts.overlap import HeldOut, compare, digest
from rlframe.types import Problem


def problem(name: str, *contents: str, system: str = "") -> Problem:
    turns = [{"role": ("user", "assistant")[index % 2], "content": text} for index, text in enumerate(contents)]
    messages = [{"role": "system", "content": system}, *turns] if system else turns
    return Problem(id=name, messages=messages, reference="", task=name[0])


HELDOUT = HeldOut([[problem("h0", "2 + 3?"), problem("h1", "4 + 4?")], [problem("i0", "Sum?", "Of?", "1 and 2")]])


def test_white_space_makes_no_other_conversation():
    assert HELDOUT.match(problem("t0", " 2  +\t3?\n")) == "h0"
    assert HELDOUT.match(problem("t1", "Sum?", "Of?", "1 and\n2 ")) == "i0"


@pytest.mark.parametrize(
    "other", [problem("t0", "2+3?"), problem("t0", "2 + 3?", system="Add."), problem("t0", "Sum?", "Of?", "1 and 3")]
)
def test_other_words_or_turns_make_another_conversation(other):
    assert HELDOUT.match(other) is None


def test_a_turn_cannot_pose_as_two():
    assert digest(problem("t", "a", "b").messages) != digest(problem("t", "a assistant: b").messages)


def test_shared_problems_are_counted_and_the_first_two_named():
    train = [problem(f"t{n}", f"{n} + {n}?") for n in range(5)] + [problem("u5", "2 + 3?"), problem("u6", " 2 + 3?")]
    overlap = compare(train, HELDOUT)
    assert (overlap.compared, overlap.count) == (7, 3)  # t4, u5 and u6
    assert overlap.named == [("t4", "h1"), ("u5", "h0")]
    assert {task: first.id for task, first in overlap.tasks.items()} == {"t": "t0", "u": "u5"}
