"""`Source`, the base of everything that problems can come from."""

from __future__ import annotations

from abc import abstractmethod
from typing import Protocol

from rlframe.schema import Config
from rlframe.types import Problem


class Problems(Protocol):
    """A fixed list of problems; a lazy source makes each one when it is asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Problem: ...


class Source(Config):
    """Where problems come from. A user's own extends this and is named by its import path.

    `load` gives the same problems in the same order whenever the settings are the same: a resumed run
    finds its place by number.
    """

    name: str

    @abstractmethod
    def load(self) -> Problems: ...
