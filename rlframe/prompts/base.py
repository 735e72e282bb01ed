"""`Source`, the base class of all sources of problems."""

from __future__ import annotations

from abc import abstractmethod
from typing import Protocol

from rlframe.schema import Config
from rlframe.types import Problem


class Problems(Protocol):
    """A fixed list of problems; a lazy source makes a problem on access."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Problem: ...


class Source(Config):
    """A source of problems. A user's own source extends this class, and its import path is its name.

    Equal settings must `load` equal problems in the same order, because a resumed run continues by index.
    """

    name: str

    @abstractmethod
    def load(self) -> Problems: ...
