"""Dates and times of day."""

import pytest

from rlframe.answers.moments import Moment, moments, same_moment


@pytest.mark.parametrize(
    ("text", "readings"),
    [
        ("January 5, 2024", [Moment(2024, 1, 5)]),
        ("5 Jan. 2024", [Moment(2024, 1, 5)]),
        ("2024-01-05", [Moment(2024, 1, 5)]),
        ("Friday, January 5th", [Moment(None, 1, 5, 4)]),
        ("3/4/2024", [Moment(2024, 3, 4), Moment(2024, 4, 3)]),
        ("31/12/2024", [Moment(2024, 12, 31)]),
        ("Tue", [Moment(weekday=1)]),
        ("3:45 p.m.", [Moment(hour=3, minute=45, second=0, half="p")]),
        ("15:45", [Moment(hour=3, minute=45, second=0, half="p")]),
        ("3:45", [Moment(hour=3, minute=45, second=0)]),
        ("5 PM", [Moment(hour=5, minute=0, second=0, half="p")]),
        ("noon", [Moment(hour=0, minute=0, second=0, half="p")]),
        ("45:3", []),
        ("3:75", []),
        ("2024-13-05", []),
        ("2:4", []),
    ],
)
def test_dates_and_times_are_read(text: str, readings: list[Moment]):
    assert moments(text) == readings


@pytest.mark.parametrize(
    ("reference", "answer", "same"),
    [
        ("January 5", "January 5, 2024", True),
        ("January 5, 2024", "January 5", False),
        ("3:45 PM", "3:45", True),
        ("3:45", "3:45 PM", True),
        ("3:45 PM", "3:45 AM", False),
        ("Friday", "Friday, January 5", True),
        ("3:45", "Friday", False),
    ],
)
def test_an_answer_may_say_more_than_the_reference(reference: str, answer: str, same: bool):
    assert same_moment(moments(reference)[0], moments(answer)[0]) is same
