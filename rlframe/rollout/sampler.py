"""`Sampler`: an episode worker's engines. Assigns completions, checks them at the door, samples refused ones again."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rlframe.actors.tasks import Tasks
from rlframe.errors import RunFailed
from rlframe.rollout.door import problem_with
from rlframe.rollout.messages import EngineReport, EngineSeat, Order
from rlframe.rollout.watched_engine import WatchedEngine
from rlframe.types import Completion, Sampling

REFUSALS_OF_ENGINE = 3  # in a row: the engine gets no more work and must be replaced
REFUSALS_OF_COMPLETION = 10  # of one completion: the run ends, because no engine sends a usable one


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Completions of an order's group."""

    order: Order
    indices: list[int]


@dataclass(slots=True, kw_only=True, eq=False)
class Call:
    """A call of an engine's `generate`, for completions of orders with the same sampling and different prompts."""

    engine: WatchedEngine
    sampling: Sampling
    version: int  # of the engine at the time of the call; tokens may be of newer versions
    orders: dict[str, Order]  # by prompt id
    owed: dict[str, set[int]]  # prompt id -> indices of completions to come
    running: asyncio.Future[Any] | None = None

    def shares(self) -> list[Share]:
        """The completions to come."""
        return [
            Share(order=self.orders[prompt_id], indices=sorted(owed)) for prompt_id, owed in self.owed.items() if owed
        ]

    def remove(self, prompt_id: Any, index: Any) -> Order | None:
        """Strikes a completion off `owed` -> the order. None if not owed, also for arguments of a wrong type."""
        if not isinstance(prompt_id, str) or not isinstance(index, int) or index not in self.owed.get(prompt_id, ()):
            return None
        self.owed[prompt_id].remove(index)
        return self.orders[prompt_id]


class Sampler:
    """Samples completions with the least busy engines. For one event loop.

    Orders of one `sample` call that go to the same engine are one `generate` call, so an idle engine starts all their
    completions in one step of its scheduler. A refused completion goes to another engine, unless there is only one.
    After several refusals in a row an engine is broken: it gets no more work, and the other engines sample its
    completions. Without an engine, completions wait until an engine joins.
    """

    def __init__(
        self,
        seats: list[EngineSeat],
        tasks: Tasks,
        on_completion: Callable[[Order, int, Completion], None],
        on_refusal: Callable[[], None],
    ) -> None:
        """`on_completion` gets an order, an index in the group, and the completion."""
        self.tasks = tasks
        self.on_completion, self.on_refusal = on_completion, on_refusal
        self.engines = {seat.name: WatchedEngine(seat=seat) for seat in seats}
        self.unfinished = 0  # completions, at engines or waiting for an engine
        self.newest_version = 0  # of the policy, published by the learner
        self.refusals = 0  # completions, since the start
        self.refused: dict[str, str] = {}  # engine -> its last refused completion, since the last `take_refused`
        self.broken: dict[str, str] = {}  # engine -> reason, likewise
        self._waiting: list[Share] = []
        self._refusals: Counter[tuple[str, int]] = Counter()  # by order and index; of unfinished completions

    @property
    def slots(self) -> int:
        return sum(engine.seat.slots for engine in self.engines.values())

    def sample(self, orders: list[Order]) -> None:
        """Starts to sample whole groups."""
        self.unfinished += sum(order.sampling.completions for order in orders)
        self._ask([Share(order=order, indices=list(range(order.sampling.completions))) for order in orders])

    def join(self, seat: EngineSeat) -> None:
        """Adds an engine. Raises ValueError where the name is taken."""
        if seat.name in self.engines:
            raise ValueError(f"there is already an engine {seat.name}")
        self.engines[seat.name] = WatchedEngine(seat=seat)
        waiting, self._waiting = self._waiting, []
        self._ask(waiting)

    def leave(self, name: str) -> None:
        """Takes out an engine, if present: others sample the unfinished completions, from the first token."""
        if engine := self.engines.pop(name, None):
            self._ask(self._end_calls(engine))

    def ask_progress(self, every_s: float) -> None:
        """Asks engines with work or a load for their progress, each once in `every_s` seconds; does not wait."""
        for engine in self.engines.values():
            if engine.should_ask(_now(), every_s, self.newest_version):
                engine.asking, engine.asked_at = True, _now()
                self.tasks.start(self._ask_progress(engine))

    def reports(self) -> list[EngineReport]:
        return [engine.report(_now()) for engine in self.engines.values()]

    def take_refused(self) -> tuple[dict[str, str], dict[str, str]]:
        """`refused` and `broken` since the last call."""
        refused, self.refused = self.refused, {}
        broken, self.broken = self.broken, {}
        return refused, broken

    def _ask(self, shares: list[Share], avoid: WatchedEngine | None = None) -> None:
        """Gives each share to the least busy engine, to `avoid` only where there is no other."""
        calls: list[Call] = []
        for share in shares:
            engines = [engine for engine in self.engines.values() if engine is not avoid] or list(self.engines.values())
            if not engines:
                self._waiting.append(share)
                continue
            engine = min(engines, key=lambda engine: engine.completions)
            engine.add(len(share.indices), _now())
            _add(calls, engine, share)
        for call in calls:
            call.engine.calls.append(call)
            call.running = self.tasks.start(self._follow(call))

    async def _follow(self, call: Call) -> None:
        """Receives an engine's completions until the engine has no more."""
        prompts = [order.prompt for order in call.orders.values()]
        whole = all(len(owed) == call.sampling.completions for owed in call.owed.values())
        indices = {} if whole else {"indices": {name: sorted(owed) for name, owed in call.owed.items()}}
        generate = call.engine.seat.handle.generate.options(num_returns="streaming")
        async for reference in generate.remote(prompts, call.sampling, **indices):
            self._receive(call, await reference)
        while shares := call.shares():
            self._refuse(call, shares[0].order.prompt.id, shares[0].indices[0], "the engine ended the call without it")
        if call in call.engine.calls:
            call.engine.calls.remove(call)

    def _receive(self, call: Call, sampled: Any) -> None:
        versions = (call.version, self.newest_version)
        if problem := problem_with(sampled, call.owed, call.sampling, versions):
            prompt_id, index = getattr(sampled, "prompt_id", None), getattr(sampled, "index", None)
            return self._refuse(call, prompt_id, index, problem)
        order = call.remove(sampled.prompt_id, sampled.index)
        assert order is not None  # the door has looked
        call.engine.remove(_now())
        call.engine.refusals_in_a_row = 0
        self.unfinished -= 1
        self._refusals.pop((order.key, sampled.index), None)
        self.on_completion(order, sampled.index, sampled.completion)

    def _refuse(self, call: Call, prompt_id: Any, index: Any, problem: str) -> None:
        """Counts a refused completion. An owed completion is sampled again."""
        engine, name = call.engine, call.engine.seat.name
        text = f"completion {index!r:.80} of prompt {prompt_id!r:.80}: {problem}"
        self.refusals += 1
        self.refused[name] = text
        engine.refusals_in_a_row += 1
        shares = []
        if order := call.remove(prompt_id, index):
            engine.remove(_now())
            shares.append(Share(order=order, indices=[index]))
            self._refusals[order.key, index] += 1
            if self._refusals[order.key, index] == REFUSALS_OF_COMPLETION:
                raise RunFailed(
                    f"{REFUSALS_OF_COMPLETION} answers of engines for one completion were refused, the last by {name}, "
                    f"{text}; look whether the policy's weights are finite, and at the engines' last output"
                )
        if engine.refusals_in_a_row == REFUSALS_OF_ENGINE:
            self.broken[name] = f"{REFUSALS_OF_ENGINE} completions in a row were refused, the last was {text}"
            del self.engines[name]
            shares += self._end_calls(engine)
        self._ask(shares, avoid=engine)
        self.on_refusal()

    def _end_calls(self, engine: WatchedEngine) -> list[Share]:
        """Cancels an engine's calls -> the completions to come."""
        shares = [share for call in engine.calls for share in call.shares()]
        for call in engine.calls:
            call.owed = {}
            if call.running:
                call.running.cancel()
        engine.calls = []
        return shares

    async def _ask_progress(self, engine: WatchedEngine) -> None:
        try:
            engine.answer(await engine.seat.handle.progress.remote(), _now())
        except Exception:
            if self.engines.get(engine.seat.name) is engine:  # an engine that has left may be gone
                raise
        finally:
            engine.asking = False


def _add(calls: list[Call], engine: WatchedEngine, share: Share) -> None:
    """Adds a share to a call of the engine with the same sampling, or adds a call."""
    order, owed = share.order, set(share.indices)
    for call in calls:
        if call.engine is engine and call.sampling == order.sampling and order.prompt.id not in call.orders:
            call.orders[order.prompt.id], call.owed[order.prompt.id] = order, owed
            return
    name, version = order.prompt.id, engine.progress.version
    calls.append(Call(engine=engine, sampling=order.sampling, version=version, orders={name: order}, owed={name: owed}))


def _now() -> float:
    return asyncio.get_running_loop().time()
