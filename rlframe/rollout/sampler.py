"""`Sampler`: assigns completions to an episode worker's engines, checks answers at the door, outlives engines."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from rlframe.actors.tasks import Tasks
from rlframe.errors import RunFailed
from rlframe.rollout.call import Call, add_share
from rlframe.rollout.death import cause_of_death
from rlframe.rollout.door import problem_with, problem_with_tokens
from rlframe.rollout.listener import Listener
from rlframe.rollout.messages import EngineBounds, EngineReport, EngineSeat
from rlframe.rollout.partials import Asked, Partials
from rlframe.rollout.unfinished import Share, Unfinished
from rlframe.rollout.watched_engine import WatchedEngine
from rlframe.types import SampledTokens

REFUSALS_OF_ENGINE = 3  # in a row: the engine gets no more work and must be replaced
REFUSALS_OF_COMPLETION = 10  # of one completion: the run ends, because no engine sends a usable one
RELEASE_S = 5.0  # for an engine to give its completions back; half of what the fleet waits for a leaving engine


class Sampler:
    """Samples completions with the least busy engines. For one event loop.

    Orders of one `sample` call that go to the same engine are one `generate` call, so an idle engine starts all their
    completions in one step of its scheduler. A refused completion goes to another engine, unless there is only one.
    An engine that dies, is silent, or sends several refused completions in a row is broken and gets no more work: the
    other engines go on with its completions after the tokens that were told. Without an engine, completions wait until
    an engine joins.
    """

    def __init__(self, seats: list[EngineSeat], tasks: Tasks, bounds: EngineBounds, listener: Listener) -> None:
        self.tasks = tasks
        self.bounds = bounds
        self.listener = listener
        self.engines = {seat.name: WatchedEngine(seat=seat) for seat in seats}
        self.unfinished = 0  # completions, at engines or waiting for an engine
        self.newest_version = 0  # of the policy, published by the learner
        self.refusals = 0  # completions, since the start
        self.late = 0  # answers of lost engines, since the start
        self.refused: dict[str, str] = {}  # engine -> its last refused completion, since the last `take_refused`
        self.broken: dict[str, str] = {}  # engine -> reason, likewise
        self._waiting: list[Unfinished] = []
        self._given_up: set[str] = set()  # keys of orders
        self._looked_at: float | None = None  # time of the last look for silent engines

    @property
    def slots(self) -> int:
        return sum(engine.seat.slots for engine in self.engines.values())

    def sample(self, shares: list[Share]) -> None:
        """Starts to sample completions."""
        completions = [completion for share in shares for completion in share.completions()]
        self.unfinished += len(completions)
        self._ask(completions)

    def join(self, seat: EngineSeat) -> None:
        """Adds an engine. Raises ValueError where the name is taken."""
        if seat.name in self.engines:
            raise ValueError(f"there is already an engine {seat.name}")
        self.engines[seat.name] = WatchedEngine(seat=seat)
        self._ask([])

    async def leave(self, name: str, hand_over: bool) -> None:
        """Takes out an engine, if present: others go on with its completions after the tokens so far.

        `hand_over`: the engine lives, and is asked for its last tokens. Otherwise the last tokens are sampled again.
        """
        if (engine := self.engines.pop(name, None)) is None:
            return
        engine.leaving = True
        try:
            if hand_over:
                with suppress(Exception):  # the engine has died meanwhile
                    async with asyncio.timeout(RELEASE_S):
                        self._note_tokens(engine, await engine.seat.handle.release.remote())
                        await asyncio.gather(*(call.running for call in engine.calls.values() if call.running))
        finally:  # also when the caller waits no longer
            self._go_on_elsewhere(engine)

    async def release(self) -> dict[tuple[str, int], SampledTokens]:
        """Ends the calls of an earlier process at all engines -> tokens so far, by prompt id and index."""
        tokens_so_far: dict[tuple[str, int], SampledTokens] = {}
        for engine in list(self.engines.values()):
            with suppress(Exception):  # the engine's next call tells its death
                async with asyncio.timeout(RELEASE_S):
                    released = self._checked(engine, await engine.seat.handle.release.remote())
                    tokens_so_far |= {(prompt_id, index): part for (_, prompt_id, index), part in released}
        return tokens_so_far

    def ask_progress(self, every_s: float) -> None:
        """Asks engines with work or a load for their progress, each once in `every_s` seconds; does not wait.

        Replaces silent engines.
        """
        now = _now()
        self._look_for_silence(now, every_s)
        for engine in self.engines.values():
            if engine.should_ask(now, every_s, self.newest_version):
                engine.asking, engine.asked_at = True, now
                self.tasks.start(self._ask_progress(engine))

    def reports(self) -> list[EngineReport]:
        return [engine.report(_now()) for engine in self.engines.values()]

    def take_refused(self) -> tuple[dict[str, str], dict[str, str]]:
        """`refused` and `broken` since the last call."""
        refused, self.refused = self.refused, {}
        broken, self.broken = self.broken, {}
        return refused, broken

    def _ask(self, completions: list[Unfinished], avoid: WatchedEngine | None = None) -> None:
        """Gives the completions of each order to an engine, and the waiting completions as well."""
        waiting, self._waiting = self._waiting, []
        calls: list[Call] = []
        for share in _by_order(waiting + completions):
            if (engine := self._choose(share, avoid)) is None:
                self._waiting += share
                continue
            engine.add(len(share), _now())
            add_share(calls, engine, share)
        for call in calls:
            call.running = self.tasks.start(self._follow(call))

    def _choose(self, share: list[Unfinished], avoid: WatchedEngine | None) -> WatchedEngine | None:
        """The least busy engine; `avoid` only if no other engine is left.

        A prompt may have killed engines one after the other, and many prompts were at these engines. An engine samples
        one order with a last chance at a time, so that the guilty prompt is given up alone.
        """
        engines = [engine for engine in self.engines.values() if engine is not avoid] or list(self.engines.values())
        if any(completion.last_chance for completion in share):
            engines = [engine for engine in engines if not engine.has_last_chance(but=share[0].order.key)]
        return min(engines, key=lambda engine: engine.completions, default=None)

    async def _follow(self, call: Call) -> None:
        """Receives an engine's completions until the engine has no more."""
        engine = call.engine
        try:
            async for reference in call.start():
                self._receive(call, await reference)
        except Exception as error:
            if engine.lost or engine.leaving:
                return
            if (cause := cause_of_death(error)) is None:
                raise
            return self._lose(engine, cause)
        if engine.lost or engine.leaving:
            return
        while owed := call.completions():
            self._refuse(call, owed[0].order.prompt.id, owed[0].index, "the engine ended the call without it")
        engine.calls.pop(call.name, None)

    def _receive(self, call: Call, sampled: Any) -> None:
        if call.engine.lost:
            self.late += 1
            return
        versions = (call.version, self.newest_version)
        if problem := problem_with(sampled, call.owed, call.sampling, versions, call.prefixes):
            prompt_id, index = getattr(sampled, "prompt_id", None), getattr(sampled, "index", None)
            return self._refuse(call, prompt_id, index, problem)
        completion = call.remove(sampled.prompt_id, sampled.index)
        assert completion is not None  # the door has looked
        call.engine.remove(_now())
        call.engine.refusals_in_a_row = 0
        self.unfinished -= 1
        if completion.order.key not in self._given_up:
            self.listener.on_completion(completion.order, sampled.index, sampled.completion)
        if completion.last_chance:
            self._ask([])

    def _refuse(self, call: Call, prompt_id: Any, index: Any, problem: str) -> None:
        """Counts a refused completion. An owed completion is sampled again from the engine's first token on."""
        text = f"completion {index!r:.80} of prompt {prompt_id!r:.80}: {problem}"
        refused: list[Unfinished] = []
        if completion := call.remove(prompt_id, index):
            call.engine.remove(_now())
            refused.append(completion)
            completion.refusals += 1
            if completion.refusals == REFUSALS_OF_COMPLETION:
                raise RunFailed(
                    f"{REFUSALS_OF_COMPLETION} answers of engines for one completion were refused, the last by "
                    f"{call.engine.seat.name}, {text}; look whether the policy's weights are finite, and at the "
                    "engines' last output"
                )
        self._count_refusal(call.engine, text, refused)

    def _count_refusal(self, engine: WatchedEngine, text: str, refused: list[Unfinished]) -> None:
        """Counts an answer that was refused, and has others sample `refused`, and all of an engine that is broken."""
        name = engine.seat.name
        self.refusals += 1
        self.refused[name] = text
        engine.refusals_in_a_row += 1
        if engine.refusals_in_a_row == REFUSALS_OF_ENGINE:
            self.broken[name] = f"{REFUSALS_OF_ENGINE} completions in a row were refused, the last was {text}"
            self.engines.pop(name, None)
            refused += engine.give_up()
        refused = self._wanted(refused)
        for completion in refused:
            nothing = completion.begin_attempt_anew()
            self.listener.on_tokens(completion.order, completion.index, completion.attempt, nothing)
        self._ask(refused, avoid=engine)
        self.listener.on_news()

    def _lose(self, engine: WatchedEngine, reason: str) -> None:
        """Replaces an engine that died or is silent."""
        del self.engines[engine.seat.name]
        self.broken[engine.seat.name] = reason
        self._go_on_elsewhere(engine, reason)
        self.listener.on_news()

    def _go_on_elsewhere(self, engine: WatchedEngine, death: str | None = None) -> None:
        """Gives an engine's completions to others. `death`: the reason, if the engine died."""
        completions = engine.give_up()
        if death:
            for completion in completions[: engine.seat.slots]:  # the rest had no slot yet
                self._count_death(completion, f"the last was {engine.seat.name}: {death}")
        for completion in completions:
            completion.begin_attempt()
        self._ask(self._wanted(completions))

    def _count_death(self, completion: Unfinished, last: str) -> None:
        """Gives up the order of a completion that no engine survives."""
        key, attempts = completion.order.key, self.bounds.attempts
        if completion.count_death(attempts) and key not in self._given_up:
            self._given_up.add(key)
            reason = f"{attempts} engines in a row died while they sampled it, {last}"
            self.listener.on_given_up(completion.order, completion.index, reason)

    def _wanted(self, completions: list[Unfinished]) -> list[Unfinished]:
        """The completions without those of orders that were given up, which are not sampled any more."""
        wanted = [completion for completion in completions if completion.order.key not in self._given_up]
        self.unfinished -= len(completions) - len(wanted)
        return wanted

    def _look_for_silence(self, now: float, every_s: float) -> None:
        """Loses silent engines. Time in which this process stood still is no silence of the engines."""
        unwatched_s = now - self._looked_at - 2 * every_s if self._looked_at is not None else 0.0
        self._looked_at = now
        for engine in list(self.engines.values()):
            if unwatched_s > 0:
                engine.moved_at = min(now, engine.moved_at + unwatched_s)
            if (reason := engine.silence(now, self.bounds)) is not None:
                self._lose(engine, reason)

    async def _ask_progress(self, engine: WatchedEngine) -> None:
        try:
            progress = await engine.seat.handle.progress.remote(with_partials=True)
            if not engine.lost:
                engine.answer(progress, _now())
                self._note_tokens(engine, progress.partials)
        except Exception as error:
            if engine.lost or engine.leaving:  # an engine that has left may be gone
                return
            if (cause := cause_of_death(error)) is None:
                raise
            self._lose(engine, cause)
        finally:
            engine.asking = False

    def _note_tokens(self, engine: WatchedEngine, partials: Partials | None) -> None:
        """Adds new tokens to the completions that the engine owes."""
        last_chances = False
        for (name, prompt_id, index), tokens in self._checked(engine, partials):
            call = engine.calls.get(name)
            completion = call.owed.get(prompt_id, {}).get(index) if call else None
            if completion is None or completion.order.key in self._given_up:
                continue
            last_chances |= completion.last_chance
            if (new_tokens := completion.extend(tokens)) is not None:
                self.listener.on_tokens(completion.order, index, completion.attempt, new_tokens)
        if last_chances:
            self._ask([])

    def _checked(self, engine: WatchedEngine, partials: Partials | None) -> Iterable[tuple[Asked, SampledTokens]]:
        """The tokens of each completion; none where the door refuses them: then later tokens do not fit either."""
        if partials is None:
            return ()
        longest = {call.name: call.sampling.max_tokens for call in engine.calls.values()}
        if problem := problem_with_tokens(partials, self.newest_version, longest):
            self._count_refusal(engine, f"completions that are not finished: {problem}", [])
            return ()
        return partials.split()


def _by_order(completions: list[Unfinished]) -> list[list[Unfinished]]:
    """Completions of the same order together."""
    shares: dict[str, list[Unfinished]] = {}
    for completion in completions:
        shares.setdefault(completion.order.key, []).append(completion)
    return list(shares.values())


def _now() -> float:
    return asyncio.get_running_loop().time()
