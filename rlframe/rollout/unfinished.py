"""`Share`: completions of a group to sample; `Unfinished`: a completion to come, with its tokens so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from rlframe.types import SampledTokens, VersionSpan

if TYPE_CHECKING:
    from rlframe.rollout.messages import Order


@dataclass(slots=True, kw_only=True, eq=False)
class Unfinished:
    """A completion to come, and its attempts: each call of an engine for it is an attempt with a number.

    The engine of attempt 1 tells 300 tokens and dies: attempt 2 begins with these 300 as `given`. Tokens that the
    engine had sampled and not told are sampled again.
    """

    order: Order
    index: int  # in the order's group
    given: SampledTokens | None = None  # the prompt's prefix, or tokens of earlier attempts, from the first on
    told: list[SampledTokens] = field(default_factory=list)  # tokens of this attempt, one chunk after the other
    length: int = 0  # tokens of `given` and `told`
    attempt: int = 1
    deaths: int = 0  # of engines in a row, each before it told a new token
    last_chance: bool = False  # with one more death, the completion is given up
    refusals: int = 0  # answers of engines that were refused

    @classmethod
    def of(cls, order: Order, index: int, given: SampledTokens | None) -> Unfinished:
        """`given` None: the completion begins with the prompt's prefix, as version 0 with log-probabilities 0."""
        if given is None and (prefix := order.prompt.prefix):
            given = SampledTokens(
                start=0,
                token_ids=np.array(prefix, np.int32),
                logprobs=np.zeros(len(prefix), np.float32),
                versions=[VersionSpan(version=0, start=0, end=len(prefix))],
            )
        return cls(order=order, index=index, given=given, length=given.end if given else 0)

    def extend(self, tokens: SampledTokens) -> SampledTokens | None:
        """Adds what is new of `tokens` and returns it; None: nothing is new, or tokens before them are missing."""
        if tokens.start > self.length or tokens.end <= self.length:
            return None
        new = tokens.since(self.length) if tokens.start < self.length else tokens
        self.told.append(new)
        self.length = new.end
        self.last_chance = False
        return new

    def begin_attempt(self) -> None:
        """The next attempt goes on after the tokens so far."""
        self.attempt += 1
        if self.told:
            self.given = SampledTokens.joined([self.given, *self.told] if self.given else self.told)
            self.told = []

    def begin_attempt_anew(self) -> SampledTokens:
        """The next attempt begins where this one began, since its engine sent nonsense -> no tokens, from there on."""
        self.attempt += 1
        self.told = []
        self.length = self.given.end if self.given else 0
        nothing = {"token_ids": np.zeros(0, np.int32), "logprobs": np.zeros(0, np.float32), "versions": []}
        return SampledTokens(start=self.length, **nothing)

    def count_death(self, attempts: int) -> bool:
        """Notes the death of the attempt's engine -> True if the completion is given up after so many in a row."""
        self.deaths = 1 if self.told else self.deaths + 1
        self.last_chance = self.deaths == attempts - 1
        return self.deaths >= attempts


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Completions of an order's group."""

    order: Order
    indices: list[int]
    prefixes: dict[int, SampledTokens] = field(default_factory=dict)  # index -> first tokens, after which to go on

    def completions(self) -> list[Unfinished]:
        return [Unfinished.of(self.order, index, self.prefixes.get(index)) for index in self.indices]
