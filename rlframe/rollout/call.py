"""`Call`: a call of an engine's `generate`, and the completions that the engine still owes."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rlframe.types import SampledTokens, Sampling

if TYPE_CHECKING:
    from rlframe.rollout.unfinished import Unfinished
    from rlframe.rollout.watched_engine import WatchedEngine


@dataclass(slots=True, kw_only=True, eq=False)
class Call:
    """A call for completions of orders with the same sampling and different prompts."""

    engine: WatchedEngine
    sampling: Sampling
    version: int  # of the engine at the time of the call; tokens may be of newer versions
    name: str = field(default_factory=lambda: uuid.uuid4().hex)  # by which the engine tells new tokens
    owed: dict[str, dict[int, Unfinished]] = field(default_factory=dict)  # prompt id -> index -> completion to come
    prefixes: dict[str, dict[int, SampledTokens]] = field(default_factory=dict)  # likewise: tokens of earlier attempts
    running: asyncio.Future[Any] | None = None

    def fits(self, share: list[Unfinished]) -> bool:
        """True for completions of a further order with the same sampling."""
        return self.sampling == share[0].order.sampling and share[0].order.prompt.id not in self.owed

    def add(self, share: list[Unfinished]) -> None:
        """Adds completions of an order, before the call starts."""
        prompt_id = share[0].order.prompt.id
        self.owed[prompt_id] = {completion.index: completion for completion in share}
        if prefixes := {completion.index: completion.given for completion in share if completion.given}:
            self.prefixes[prompt_id] = prefixes

    def start(self) -> AsyncIterator[Awaitable[Any]]:
        """Calls the engine -> its answers, as they come."""
        prompts = [next(iter(owed.values())).order.prompt for owed in self.owed.values()]
        named: dict[str, Any] = {"call": self.name}
        if any(len(owed) < self.sampling.completions for owed in self.owed.values()):
            named["indices"] = {prompt_id: sorted(owed) for prompt_id, owed in self.owed.items()}
        if self.prefixes:
            named["prefixes"] = self.prefixes
        generate = self.engine.seat.handle.generate.options(num_returns="streaming")
        return generate.remote(prompts, self.sampling, **named)

    def completions(self) -> list[Unfinished]:
        """The completions to come."""
        return [completion for owed in self.owed.values() for completion in owed.values()]

    def remove(self, prompt_id: Any, index: Any) -> Unfinished | None:
        """Strikes a completion off `owed`. None if not owed, also for arguments of a wrong type."""
        if not isinstance(prompt_id, str) or not isinstance(index, int):
            return None
        return self.owed.get(prompt_id, {}).pop(index, None)


def add_share(calls: list[Call], engine: WatchedEngine, share: list[Unfinished]) -> None:
    """Adds completions of an order to a call of the engine with the same sampling, or adds a call."""
    call = next((call for call in calls if call.engine is engine and call.fits(share)), None)
    if call is None:
        call = Call(engine=engine, sampling=share[0].order.sampling, version=engine.progress.version)
        engine.calls[call.name] = call
        calls.append(call)
    call.add(share)
