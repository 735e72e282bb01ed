"""`Source`, the base class of all sources of problems."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import Protocol

from rlframe.schema import Config
from rlframe.types import Problem


class Problems(Protocol):
    """A fixed list of problems; a lazy source makes a problem on access.

    A source that reads many records faster than one by one also defines `__iter__`, from the first to the last.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Problem: ...


class Source(Config):
    """A source of problems. A user's own source extends this class, and its import path is its name.

    Equal settings must `load` equal problems in the same order, because a resumed run continues by index.
    """

    name: str

    @abstractmethod
    def load(self) -> Problems: ...


def in_order(problems: Problems) -> Iterator[Problem]:
    """Every problem, from the first to the last."""
    if isinstance(problems, Iterable):
        return iter(problems)
    return (problems[index] for index in range(len(problems)))


def spread(problems: Problems, size: int) -> Iterator[Problem]:
    """`size` problems at even distances, the first one included; all problems where there are fewer."""
    count = min(size, len(problems))
    return (problems[number * len(problems) // count] for number in range(count))


def until(problems: Iterable[Problem], seconds: float) -> Iterator[Problem]:
    """The first problem, and those that follow within some seconds: a source may take long to make a problem."""
    deadline = time.monotonic() + seconds
    for problem in problems:
        yield problem
        if time.monotonic() > deadline:
            return
