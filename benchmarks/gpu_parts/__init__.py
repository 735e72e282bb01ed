"""The parts of `gpu_check.py`: generators of figures, each with its bound where the figure has one."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import NamedTuple


class Skip(Exception):
    """Raised by a part that this machine cannot run, with the reason."""


class Figure(NamedTuple):
    """A measurement of a part; a part fails with a figure outside its bounds."""

    name: str
    value: float
    unit: str = ""
    at_most: float | None = None
    at_least: float | None = None

    @property
    def holds(self) -> bool:
        above = self.at_most is None or self.value <= self.at_most  # False for NaN
        return above and (self.at_least is None or self.value >= self.at_least)

    def __str__(self) -> str:
        bounds = [f"at most {self.at_most:g}"] if self.at_most is not None else []
        bounds += [f"at least {self.at_least:g}"] if self.at_least is not None else []
        limits = f" ({'' if self.holds else 'NOT '}{', '.join(bounds)})" if bounds else ""
        return f"{self.name} {self.value:.4g} {self.unit}".rstrip() + limits


class Part(NamedTuple):
    """A function `run(small)` in a module of this package, which needs the module's packages."""

    module: str
    function: str
    limit_s: float
    needs_gpu: bool = False  # no small form

    def run(self, small: bool) -> Iterator[Figure]:
        module = importlib.import_module(f"benchmarks.gpu_parts.{self.module}")
        yield from getattr(module, self.function)(small)


PARTS = {
    "attention": Part("attention", "attention", 150),
    "publish": Part("publish", "publish", 30),
    "resume": Part("learner", "resume", 90),
    "export": Part("learner", "export", 60),
    "sleep": Part("learner", "sleep", 60),
    "step": Part("learner", "step_speed", 120),
    "flash": Part("learner", "flash", 60, needs_gpu=True),
    "engine": Part("engine", "engine", 150),
    "ipc": Part("engine", "ipc", 150, needs_gpu=True),
    "experts": Part("engine", "experts", 150, needs_gpu=True),
    "nccl": Part("engine", "nccl", 150, needs_gpu=True),
}
