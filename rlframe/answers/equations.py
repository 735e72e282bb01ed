"""Equations beside equations, values and lists: x = 5 is 5, but contradicts y = 5."""

from __future__ import annotations

import re
from fractions import Fraction

from rlframe.answers.exact import same_number
from rlframe.answers.latex import latex
from rlframe.answers.names import is_label, is_name
from rlframe.answers.sequences import same_collections
from rlframe.answers.truth import Judge, Truth, all_true, any_true
from rlframe.answers.values import Collection, Equation, Expression, Number, Value

FUNCTION = re.compile(r"(?P<name>(?:[A-Za-z]|\\[a-z]+)(?:\^\{-1\})?'*) ?\( ?(?P<variable>[a-z]) ?\)")


def same_equation(judge: Judge, reference: Value, answer: Value) -> Truth:
    """At least one side is an equation. A chain that contradicts itself, such as 5 = 6, is never right."""
    match reference, answer:
        case Equation(), Equation():
            return same_equations(judge, reference, answer)
        case Equation(), Collection(kind="list"):
            return same_named_tuple(judge, reference, answer)
        case Equation(), _:
            if not is_label(reference.name) or (reference.constants and depends(reference)):
                return False
            return any_true(judge.same(value, answer) for value in (reference.value, *reference.rounded))
        case Collection(kind="list"), Equation():
            return same_named_tuple(judge, answer, reference)
        case _, Equation():
            exact = any_true(judge.same(reference, value) for value in (answer.value, *answer.constants))
            rounded = (given(judge, reference, value, answer) for value in answer.rounded)
            agreements = (consistent(judge, constant, answer.value) for constant in answer.constants)
            return all_true([any_true([exact, *rounded]), *agreements])
    return False


def same_equations(judge: Judge, reference: Equation, answer: Equation) -> Truth:
    """y = 2x is 2x = y, and by algebra y - 2x = 0; x = 5 contradicts y = 5."""
    answer = renamed(reference, answer)
    names = reference.name.replace(" ", ""), answer.name.replace(" ", "")
    if names[0] == names[1] or not all(names):
        same_value = judge.same(reference.value, answer.value)
        return same_value if is_label(reference.name) or same_value else judge.by_algebra(reference, answer)
    if is_name(reference.name) and is_name(answer.name) and not (depends(reference) or depends(answer)):
        return False
    return judge.by_algebra(reference, answer)


def renamed(reference: Equation, answer: Equation) -> Equation:
    """f(t) = t^2 as f(x) = x^2 beside f(x): the name of a function's variable does not count."""
    first, second = FUNCTION.fullmatch(reference.name), FUNCTION.fullmatch(answer.name)
    text = latex(answer.value)
    if first is None or second is None or first["name"] != second["name"] or text is None:
        return answer
    old, new = (rf"(?<![A-Za-z\\]){match['variable']}(?![A-Za-z])" for match in (second, first))
    if first["variable"] == second["variable"] or re.search(new, text):
        return answer
    text = re.sub(old, first["variable"], text)
    return Equation(reference.name, Expression(text), f"{reference.name} = {text}")


def same_named_tuple(judge: Judge, equation: Equation, collection: Collection) -> Truth:
    """(x, y) = (1, 2) beside x = 1, y = 2; and x = 1 beside a list."""
    names = re.fullmatch(r"\(([^()]*)\)", equation.name.strip())
    if names is not None and isinstance(equation.value, Collection) and equation.value.kind == "tuple":
        variables = [name.strip() for name in names[1].split(",")]
        if len(variables) == len(equation.value.items):
            items = tuple(
                Equation(name, value, f"{name} = {latex(value)}")
                for name, value in zip(variables, equation.value.items, strict=True)
            )
            return same_collections(judge, Collection("list", items), collection)
    return judge.same(equation.value, collection) if is_label(equation.name) else False


def given(judge: Judge, reference: Value, rounded: Value, answer: Equation) -> Truth:
    """An answer's rounded value is right if it fits the exact value beside it."""
    return all_true([judge.same(reference, rounded), consistent(judge, answer.value, rounded)])


def consistent(judge: Judge, exact: Value, value: Value) -> Truth:
    """True if a chain's sides are equal, or the last one is a rounded decimal: 1/3 = 0.33, but not 5 = 6."""
    decimals = value.text.partition(".")[2] if isinstance(value, Number) else ""
    if not decimals:
        return judge.same(exact, value)
    unit = Fraction(1, 2 * 10 ** len(decimals))  # half of the last place
    if isinstance(exact, Number) and isinstance(value, Number):
        return same_number(exact, value) or abs(exact.value - value.value) <= unit
    return judge.by_algebra(exact, value, unit)


def depends(equation: Equation) -> bool:
    """True if the value has variables."""
    text = latex(equation.value) or ""
    return bool(re.search(r"(?<![\\A-Za-z])[A-Za-z](?![A-Za-z])", re.sub(r"\\[A-Za-z]+", " ", text)))
