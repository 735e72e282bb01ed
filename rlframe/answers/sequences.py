"""Collections: lists, sets, tuples, vectors, matrices and ratios."""

from __future__ import annotations

from rlframe.answers.latex import latex
from rlframe.answers.truth import Judge, Truth, all_true, any_true
from rlframe.answers.values import Collection, Equation, Expression, Matrix, Number, Ratio, Value, Words


def same_collections(judge: Judge, reference: Value, answer: Value) -> Truth:
    """Lists and sets have no order. A tuple is no set, but equals a list in the written order; so do x = 1, y = 2."""
    if (letters := same_letters(reference, answer)) is not None:
        return letters
    first = reference if isinstance(reference, Collection) else Collection("list", (reference,))
    second = answer if isinstance(answer, Collection) else Collection("list", (answer,))
    if len(first.items) == 1 and len(second.items) > 1:  # several spellings of one value; 15 or 0.15 is no 15%
        same = [judge.same(second.items[0], item) for item in second.items[1:]]
        if all_true(same) is not True:
            return False if False in same else None
    first, second = without_indices(first, second), without_indices(second, first)
    kinds = {first.kind, second.kind}
    if kinds == {"tuple", "set"} or ("tuple" in kinds and not (reference is first and answer is second)):
        return False
    names = [{item.name for item in side.items if isinstance(item, Equation)} for side in (first, second)]
    if "tuple" in kinds or (sorted(map(len, names)) > [0, 1] and min(map(len, names)) == 0):
        if kinds == {"set", "list"} and max(map(len, names)) > 1:
            return False
        return same_sequences(judge, first.items, second.items)
    return same_sets(judge, first.items, second.items)


def without_indices(side: Collection, other: Collection) -> Collection:
    """x = 2, x = 3 for x_1 = 2, x_2 = 3 beside values without indices."""
    bases = {item.name.partition("_")[0] for item in side.items if isinstance(item, Equation) and "_" in item.name}
    others = {item.name for item in other.items if isinstance(item, Equation)}
    if len(bases) != 1 or not others <= bases or not all(isinstance(item, Equation) for item in side.items):
        return side
    base = bases.pop()
    items = (item.value for item in side.items if isinstance(item, Equation))
    return Collection(side.kind, tuple(Equation(base, value, f"{base} = {latex(value)}") for value in items))


def same_letters(reference: Value, answer: Value) -> bool | None:
    """Letters in a row beside a list: DEBAC is D, E, B, A, C; and AC is C, A, both options. None for other values."""
    sides = [letters_of(reference), letters_of(answer)]
    if None in sides or isinstance(reference, Collection) == isinstance(answer, Collection):
        return None
    first, second = str(sides[0]), str(sides[1])
    return first == second or (sorted(first) == sorted(second) and first == "".join(sorted(first)))


def letters_of(value: Value) -> str | None:
    match value:
        case Words(text=text) | Expression(text=text):
            letters = text.replace(" ", "")
            return letters.upper() if letters.isalpha() and letters.isascii() else None
        case Collection(kind="list" | "set" | "tuple", items=items):
            letters = [letters_of(item) for item in items]
            return "".join(map(str, letters)) if all(letter and len(letter) == 1 for letter in letters) else None
    return None


def same_sequences(judge: Judge, reference: tuple[Value, ...] | None, answer: tuple[Value, ...] | None) -> Truth:
    """Values are equal in order. None: a matrix that is no vector."""
    if reference is None or answer is None or len(reference) != len(answer):
        return False
    return all_true(judge.same(x, y) for x, y in zip(reference, answer, strict=True))


def same_sets(judge: Judge, reference: tuple[Value, ...], answer: tuple[Value, ...]) -> Truth:
    """Every value of either side equals a value of the other side."""
    same = [[judge.same(x, y) for y in answer] for x in reference]
    return all_true([any_true(row) for row in same] + [any_true(column) for column in zip(*same, strict=True)])


def same_matrices(judge: Judge, reference: Value, answer: Value) -> Truth:
    """Matrices of one shape are equal cell by cell. A row or column equals the tuple of its cells."""
    match reference, answer:
        case Matrix(rows=first), Matrix(rows=second):
            if [len(row) for row in first] != [len(row) for row in second]:
                return vector(first) is not None and same_sequences(judge, vector(first), vector(second))
            cells = zip((x for row in first for x in row), (y for row in second for y in row), strict=True)
            return all_true(judge.same(x, y) for x, y in cells)
        case (Matrix(rows=rows), Collection(kind="tuple" | "list", items=items)):
            return same_sequences(judge, vector(rows), items)
        case (Collection(kind="tuple" | "list", items=items), Matrix(rows=rows)):
            return same_sequences(judge, items, vector(rows))
        case (Matrix(), Expression()) | (Expression(), Matrix()):
            return judge.by_algebra(reference, answer)
    return False


def same_ratios(judge: Judge, reference: Value, answer: Value) -> Truth:
    """2:4 is 1:2, and a fraction."""
    match reference, answer:
        case Ratio(parts=first), Ratio(parts=second):
            if len(first) != len(second):
                return False
            pairs = list(zip(first, second, strict=True))
            if all(isinstance(x, Number) and isinstance(y, Number) for x, y in pairs):
                head = pairs[0]
                return all(x.value * head[1].value == y.value * head[0].value for x, y in pairs)  # pyright: ignore
            same = all_true(judge.same(x, y) for x, y in pairs)
            return same if same or len(first) != 2 else judge.by_algebra(reference, answer)
        case (Ratio(parts=(Number() as over, Number() as under)), Number() as other) | (
            Number() as other, Ratio(parts=(Number() as over, Number() as under))
        ):  # fmt: skip
            return over.value == other.value * under.value
    return judge.by_algebra(reference, answer)


def vector(rows: tuple[tuple[Value, ...], ...]) -> tuple[Value, ...] | None:
    if len(rows) == 1:
        return rows[0]
    return tuple(row[0] for row in rows) if all(len(row) == 1 for row in rows) else None
