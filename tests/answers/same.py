"""Whether an answer is right for a reference, by all kinds and by math-verify, in this process."""

from rlframe.answers.algebra import by_math_verify
from rlframe.answers.comparison import Comparison, Units
from rlframe.answers.reading import read


def is_right(reference: str, answer: str, units: Units = "ignore") -> bool | None:
    return Comparison(units, by_math_verify).same(read(reference), read(answer))
