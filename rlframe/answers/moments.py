"""Dates and times of day: fields that are compared one by one, never as arithmetic."""

from __future__ import annotations

import re
from typing import NamedTuple

from rlframe.answers.numerals import ONES, TENS

MONTHS = [
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
    "december",
]  # fmt: skip
DAYS = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
MONTH = (
    r"(?P<month>jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?"
    r"|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\.?"
)
DAY = (
    r"(?P<weekday>mon(?:day)?|tue(?:s(?:day)?)?|wed(?:nesday)?|thu(?:r(?:s(?:day)?)?)?|fri(?:day)?|sat(?:urday)?"
    r"|sun(?:day)?)"
)
NUMBER = r"(?P<day>[0-3]?[0-9])(?:st|nd|rd|th)?"
YEAR = r"(?P<year>[0-9]{4})"
DATES = [
    re.compile(rf"(?:{DAY}\.?,? )?(?:the )?{NUMBER}(?: of)? {MONTH}(?:,? {YEAR})?"),
    re.compile(rf"(?:{DAY}\.?,? )?{MONTH} (?:the )?{NUMBER}(?:,? {YEAR})?"),
    re.compile(rf"{MONTH},? {YEAR}"),
    re.compile(rf"{YEAR}[-/.](?P<month>[01]?[0-9])[-/.](?P<day>[0-3]?[0-9])"),
    re.compile(DAY),
    re.compile(MONTH),
]
NUMERIC = re.compile(r"([0-3]?[0-9])([-/.])([0-3]?[0-9])\2([0-9]{4})")
HALF = r"(?P<half>[ap])\.? ?m\.?"
TIMES = [
    re.compile(rf"(?P<hour>[0-2]?[0-9]):(?P<minute>[0-5][0-9])(?::(?P<second>[0-5][0-9]))?(?: ?{HALF})?"),
    re.compile(rf"(?P<hour>1?[0-9]) ?{HALF}"),
    re.compile(rf"(?P<hour>1?[0-9]) o'?clock(?: ?{HALF})?"),
]
NAMED_TIMES = {"noon": (12, 0, "p"), "midnight": (12, 0, "a"), "12 noon": (12, 0, "p"), "12 midnight": (12, 0, "a")}


AROUND = re.compile(  # the sentence before a date or time, without a denial
    r"^(?:(?!.*\b(?:not|no|never|or|before|after|until|except|between|nor)\b)[a-z][a-z ']* )?"
    r"(?:on|at|is|was|be) (?:an? |the )?(?=[0-9a-z])"
)
CHINESE = re.compile(r"([0-9]{4})年([0-9]{1,2})月([0-9]{1,2})[日号]")
SPOKEN = re.compile(
    rf"^(?:(?:a )?(?P<part>half|quarter|{'|'.join(list(ONES)[1:])}|{'|'.join(TENS)})(?: minutes)?"
    r" (?P<side>past|to|after) )?"
    rf"(?P<hour>{'|'.join(list(ONES)[1:13])}|1?[0-9])(?P<oclock> o'?clock)?"
    r"(?: (?:in the (?P<day>morning|afternoon|evening)|at (?P<night>night)))?$"
)


def spoken(match: re.Match[str]) -> str:
    """A time in words as hour, minute and half of the day: "half past seven in the morning" is 7:30 am."""
    part, side, hour, day = match["part"], match["side"], match["hour"], match["day"] or match["night"]
    if not (part or match["oclock"] or day):
        return match[0]
    minute = {"half": 30, "quarter": 15, None: 0}.get(part)
    if minute is None:
        minute = int((ONES | TENS)[str(part)])
    number = int(hour) if hour.isdigit() else ONES[hour]
    if side == "to":
        number, minute = (number - 1) or 12, 60 - minute
    half = "" if day is None else " am" if day == "morning" else " pm"
    return f"{number}:{minute:02}{half}"


class Moment(NamedTuple):
    """A date or a time of day; fields that the text leaves out are None.

    >>> moments("Jan 5, 2024") == moments("2024-01-05")
    True
    """

    year: int | None = None
    month: int | None = None
    day: int | None = None
    weekday: int | None = None
    hour: int | None = None
    minute: int | None = None
    second: int | None = None
    half: str | None = None


def moments(text: str) -> list[Moment]:
    """The readings of a date or time: none, one, or, for 3/4/2024, day first and month first."""
    text = text.strip().lower().replace("\\text{", "").replace("}", "").strip().removesuffix(".")
    text = re.sub(r"(?<=[ap])\. ?m$", "m", re.sub(r"\s+", " ", re.sub(r" ?: ?", ":", text)))
    text = SPOKEN.sub(spoken, AROUND.sub("", SPOKEN.sub(spoken, text)))
    if match := CHINESE.fullmatch(text):
        year, month, day = map(int, match.groups())
        return [Moment(year, month, day)]
    if match := NUMERIC.fullmatch(text):
        first, second, year = int(match[1]), int(match[3]), int(match[4])
        readings = [(first, second), (second, first)]
        return [Moment(year, month, day) for month, day in readings if 1 <= month <= 12 and 1 <= day <= 31]
    for pattern in DATES:
        if match := pattern.fullmatch(text):
            return date(match.groupdict())
    if text in NAMED_TIMES:
        hour, minute, half = NAMED_TIMES[text]
        return [Moment(hour=hour % 12, minute=minute, second=0, half=half)]
    for pattern in TIMES:
        if match := pattern.fullmatch(text + ("." if text.endswith(".m") else "")):
            return time(match.groupdict())
    return []


def date(fields: dict[str, str | None]) -> list[Moment]:
    month, weekday, day, year = (fields.get(name) for name in ("month", "weekday", "day", "year"))
    month_number = day_number = None
    if month:
        month_number = int(month) if month.isdigit() else next(
            number for number, name in enumerate(MONTHS, 1) if name.startswith(month[:3]))  # fmt: skip
    if day:
        day_number = int(day)
    if not 1 <= (month_number or 1) <= 12 or not 1 <= (day_number or 1) <= 31:
        return []
    number = next(index for index, name in enumerate(DAYS) if name.startswith(weekday[:3])) if weekday else None
    return [Moment(int(year) if year else None, month_number, day_number, number)]


def time(fields: dict[str, str | None]) -> list[Moment]:
    hour, minute, second = int(fields["hour"] or 0), int(fields.get("minute") or 0), int(fields.get("second") or 0)
    half = fields.get("half")
    if hour > 23 or (half and not 1 <= hour <= 12):
        return []
    if hour > 12 or hour == 0:
        half = "p" if hour > 12 else "a"
    return [Moment(hour=hour % 12, minute=minute, second=second, half=half)]


def same_moment(reference: Moment, answer: Moment) -> bool:
    """True if the answer has the reference's fields. It may add fields, and leave out the half of the day."""
    for name, expected, given in zip(Moment._fields, reference, answer, strict=True):
        if (
            expected is not None
            and expected != given
            and not (name == "half" and given is None and answer.hour is not None)
        ):
            return False
    return (reference.hour is None) == (answer.hour is None)
