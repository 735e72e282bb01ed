"""Pairs of references and answers as data sets and models write them, equal and different; and hostile answers.

All pairs of a mix differ, because sympy caches results and a repeated expression would look fast.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple


class Pair(NamedTuple):
    kind: str
    reference: str
    answer: str
    equal: bool


def mix(size: int, seed: int) -> list[Pair]:
    """`size` distinct pairs, the kinds in turn, half of each kind equal on average."""
    rng = random.Random(seed)
    pairs: dict[Pair, None] = {}
    while len(pairs) < size:
        kind = list(KINDS)[len(pairs) % len(KINDS)]
        equal = rng.random() < 0.5
        pairs[Pair(kind, *KINDS[kind](rng, equal), equal)] = None
    return list(pairs)


def integers(rng: random.Random, equal: bool) -> tuple[str, str]:
    n = rng.randint(-(10**6), 10**6)
    other = n if equal else n + rng.choice([-10, -1, 1, 9, 1000])
    return str(n), rng.choice([f"{other:,}", f"{other}", f"{other}.0", f"x = {other}"])


def decimals(rng: random.Random, equal: bool) -> tuple[str, str]:
    n = rng.randint(1, 10**5)
    other = n if equal else n + rng.choice([-1, 1, 37])
    return f"{n / 1000:.3f}", rng.choice([f"{other / 1000:.3f}0", rf"\frac{{{other}}}{{1000}}", f"{other / 1000:.3f}"])


def fractions(rng: random.Random, equal: bool) -> tuple[str, str]:
    p, q, k = rng.randint(1, 999), rng.randint(2, 999), rng.randint(2, 9)
    top = p * k + (0 if equal else rng.choice([-1, 1, k]))
    shape = rng.choice([r"\frac{%d}{%d}", r"\dfrac{%d}{%d}", "%d/%d", r"\frac {%d} {%d}"])
    return rf"\frac{{{p}}}{{{q}}}", shape % (top, q * k)


def surds(rng: random.Random, equal: bool) -> tuple[str, str]:
    a, b, k = rng.randint(2, 99), rng.choice([2, 3, 5, 6, 7, 10, 11, 13]), rng.randint(2, 9)
    other = a if equal else a + 1
    return rng.choice(
        [
            (rf"{k * a}\sqrt{{{b}}}", rf"{other}\sqrt{{{b * k * k}}}"),
            (rf"\frac{{{a}}}{{\sqrt{{{b}}}}}", rf"\frac{{{other}\sqrt{{{b}}}}}{{{b}}}"),
            (rf"{a} + {k}\sqrt{{{b}}}", rf"{k}\sqrt{{{b}}} + {other}"),
        ]
    )


def polynomials(rng: random.Random, equal: bool) -> tuple[str, str]:
    a, b = rng.randint(2, 99), rng.randint(2, 99)
    c = a * b + (0 if equal else 1)
    return rng.choice(
        [
            (f"x^2 + {a + b}x + {c}", f"(x + {a})(x + {b})"),
            (f"(x + {a})(x - {b})", f"x^2 + ({a - b})x - {c}"),
            (f"{a}y + {b}z", f"{b}z + {a + (not equal)}y"),
        ]
    )


def powers(rng: random.Random, equal: bool) -> tuple[str, str]:
    a, n = rng.randint(2, 99), rng.randint(2, 9)
    other = a if equal else a + 1
    return rng.choice(
        [
            (f"{a}^{{{n}}}", str(other**n)),
            (rf"{a}\pi", rf"\pi \cdot {other}"),
            (f"{a}^{{-{n}}}", rf"\frac{{1}}{{{other**n}}}"),
        ]
    )


def sets(rng: random.Random, equal: bool) -> tuple[str, str]:
    items = rng.sample(range(-99, 100), 3)
    shuffled = rng.sample(items, 3)
    if not equal:
        shuffled[0] = 100
    inside = ", ".join(map(str, shuffled))
    return rf"\{{{', '.join(map(str, items))}\}}", rng.choice([rf"\{{{inside}\}}", inside])


def intervals(rng: random.Random, equal: bool) -> tuple[str, str]:
    low, width = rng.randint(-99, 99), rng.randint(1, 99)
    left, right = rng.choice("(["), rng.choice(")]")
    end = low + width + (not equal)
    return (
        f"{left}{low}, {low + width}{right}",
        rng.choice([f"{left}{low},{end}{right}", rf"\left{left} {low}, {end} \right{right}"]),
    )


def tuples(rng: random.Random, equal: bool) -> tuple[str, str]:
    a, b, c = (rng.randint(-99, 99) for _ in range(3))
    other = c if equal else c + 1
    return f"({a}, {b}, {c})", rng.choice([f"({a},{b},{other})", rf"\left({a}, {b}, \frac{{{2 * other}}}{{2}}\right)"])


def matrices(rng: random.Random, equal: bool) -> tuple[str, str]:
    a, b, c, d = (rng.randint(-99, 99) for _ in range(4))
    other = d if equal else d + 1
    shape = r"\begin{%s} %d & %d \\ %d & %d \end{%s}"
    return shape % ("pmatrix", a, b, c, d, "pmatrix"), shape % ("bmatrix", a, b, c, other, "bmatrix")


def percentages(rng: random.Random, equal: bool) -> tuple[str, str]:
    n = rng.randint(1, 9999)
    other = n if equal else n + 1
    return rf"{n / 10}\%", rf"{other / 10}\%"


def units(rng: random.Random, equal: bool) -> tuple[str, str]:
    n = rng.randint(1, 9999)
    unit = rng.choice([r" \text{ cm}", r"\text{ miles}", r" \text{ cm}^2", r"^\circ", r"\,\mathrm{kg}", " meters"])
    return rng.choice([f"{n}{unit}", str(n)]), f"{n if equal else n + 1}{unit}"


def money(rng: random.Random, equal: bool) -> tuple[str, str]:
    n = rng.randint(1000, 10**7)
    other = n if equal else n + 10
    return f"{n:,}", rng.choice([rf"\${other:,}", rf"\${other}.00", f"{other}"])


def texts(rng: random.Random, equal: bool) -> tuple[str, str]:
    first, second = rng.sample(WORDS, 2)
    day, other = (f"{first} {second}", f"{second} {first}") if rng.random() < 0.3 else (first, second)
    answer = day if equal else other
    return rf"\text{{{day}}}", rng.choice(
        [rf"\text{{{answer}}}", rf"\text{{{answer.lower()}}}", rf"\mathrm{{{answer}}}"]
    )


def equations(rng: random.Random, equal: bool) -> tuple[str, str]:
    a, b = rng.randint(2, 99), rng.randint(1, 99)
    other = b if equal else b + 1
    return rng.choice(
        [(f"y = {a}x + {b}", f"y = {other} + {a}x"), (f"x = {b}", f"{other}"), (f"x > {b}", rf"{other} < x")]
    )


def complexes(rng: random.Random, equal: bool) -> tuple[str, str]:
    a, b = rng.randint(-99, 99), rng.randint(2, 99)
    return f"{a} + {b}i", f"{b + (not equal)}i + {a}"


WORDS = [
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
    "Evelyn",
    "Angela",
    "Debra",
    "red",
    "green",
    "blue",
    "north",
    "south",
    "east",
    "west",
    "even",
    "odd",
    "parabola",
    "ellipse",
    "circle",
    "isosceles",
    "scalene",
    "increasing",
    "decreasing",
    "yes",
    "no",
    "true",
    "false",
]

KINDS: dict[str, Callable[[random.Random, bool], tuple[str, str]]] = {
    make.__name__: make
    for make in (
        *(integers, decimals, fractions, surds, polynomials, powers, sets, intervals, tuples, matrices),
        *(percentages, units, money, texts, equations, complexes),
    )
}

# Towers, factorials, sums, nesting, sizes: without a bound, sympy takes seconds to for ever for each.
HOSTILE = [
    "9^{9^{9^9}}",
    "10^{10^{10}}",
    "9^{(9)^{(9)^9}}",  # only parsing reveals the tower
    "99999^{999999}",
    "(10^9)!",
    "9!!!!",
    "((9!)!)!",
    r"\sum_{k=1}^{10^9} k^k",
    r"\sum_{k=1}^{99999} \frac{1}{k^2+x}",
    r"\prod_{k=1}^{99999} (k^2+x)",
    r"\binom{10^9}{5*10^8}",
    "[" * 5000 + "1" + "]" * 5000,
    "(" * 30 + "1" + ")" * 30,
    r"\frac{1}{" * 39 + "2" + "}" * 39,
    r"\sqrt" * 300 + "2",
    "1+" * 900 + "1",
    "1E999999999",
    r"\pmod" * 300 + "5",
    "1 \\pm " * 200 + "2",
    "(1," * 600,
    "x = " * 400 + "1",
    "7" * 2000,
    "(x+y+z+1)^{999}",
    r"\cos(\cos(\cos(10^{99999})))",
    r"\int \frac{e^{x^2}\sin(x)}{x^5+x+1} dx",
    r"\begin{pmatrix}" + r"\\".join("&".join("1" * 30) for _ in range(30)) + r"\end{pmatrix}",
]
