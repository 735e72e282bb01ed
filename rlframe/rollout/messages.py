"""Messages between the driver and episode workers: orders go out, reports with small records come back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from rlframe.actors.replicas import Handle
    from rlframe.record.frames import Location
    from rlframe.rollout.partials import Partials
    from rlframe.training import GroupRecord
    from rlframe.types import Prompt, Sampling


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A prompt whose group an episode worker samples and scores."""

    key: str  # unique in a run: "arithmetic/7@0#2" is the second attempt of the prompt
    prompt: Prompt
    sampling: Sampling
    taught: bool = False  # a teacher scores the tokens; an evaluation asks no teacher


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """An order's group, sampled and scored. It comes again if its worker is lost: the later record counts."""

    key: str  # of the order
    record: GroupRecord

    @property
    def location(self) -> Location | None:
        """Of the group's body in the log; None: the run keeps no log."""
        return self.record.location


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSeat:
    """An engine that an episode worker samples with."""

    name: str
    handle: Handle
    slots: int  # completions that the engine samples at the same time


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineBounds:
    """Bounds after which an episode worker gives up on an engine, or on a completion."""

    silence_s: float  # without a token, while the engine has completions and does not load
    first_token_s: float  # likewise, until the engine's first token: its first call may compile kernels
    attempts: int  # engines that die in a row, each before it tells a new token of a completion


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineProgress:
    """An engine's answer to `progress()`."""

    tokens: int  # sampled since the start, unfinished completions included
    version: int  # of the policy that samples now
    loading: bool  # new weights
    busy_slot_s: float  # slots in use, integrated over the seconds since the start
    recomputed_tokens: int  # since the start: their keys and values were lost to a load, or for lack of memory
    partials: Partials | None = None  # new tokens since the last answer that told any; None: none, or not asked for


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Probe:
    """An engine's log-probabilities of fixed tokens, to compare with another engine's."""

    version: int  # of the policy that computed them
    logprobs: np.ndarray  # [L - 1] float32: of each token after the first


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineReport(EngineProgress):
    """An engine's latest answer, and its work as the episode worker sees it."""

    name: str
    completions: int  # unfinished, at the engine
    silent_s: float  # seconds without a new token, while the engine has completions and does not load
    answered: bool = True  # False: the episode worker has no answer of the engine yet, and the figures are 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeReport:
    """News of an episode worker since the previous report."""

    orders: int  # received since the start; the counts below are of these orders
    completions: int  # unfinished: at engines, or waiting for an engine
    scoring: dict[str, int]  # reward worker -> calls in flight
    scoring_silent_s: float  # seconds without a verdict, while calls are in flight
    finished: list[Finished] = field(default_factory=list)
    engines: list[EngineReport] | None = None  # all, once a heartbeat; None between two heartbeats
    refused: dict[str, str] = field(default_factory=dict)  # engine -> problem of the last of its refused completions
    refusals: int = 0  # completions that were refused, since the start
    broken: dict[str, str] = field(default_factory=dict)  # engine to replace -> reason: dead, silent, or refused thrice
    given_up: dict[str, str] = field(default_factory=dict)  # key of an order that no engine survives -> reason
    late: int = 0  # answers of engines that had left or were broken, ignored since the start
    written: int = 0  # files of rollouts, since the start
    warnings: list[str] = field(default_factory=list)  # lines for the console
    metrics: dict[str, float] = field(default_factory=dict)  # of the rewards, as of now
    failure: BaseException | None = None  # ends the run: the error of an engine or of a reward
