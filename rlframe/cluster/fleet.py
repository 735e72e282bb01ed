"""`Fleet`: a run's engines, as many as wanted. They start, join, leave and are replaced while the run goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from ray.exceptions import RayError

from rlframe.actors.failure import describe
from rlframe.actors.replicas import Replica, ReplicaState
from rlframe.cluster import nodes, parity
from rlframe.cluster.losses import Losses
from rlframe.errors import RunFailed, Stalled
from rlframe.rollout.messages import EngineSeat

if TYPE_CHECKING:
    from rlframe.actors.background import Background
    from rlframe.cluster.engines import EngineActors
    from rlframe.config.run import RunConfig
    from rlframe.rollout.episode_pool import EpisodePool
    from rlframe.rollout.pool import RolloutPool
    from rlframe.weights.sync import WeightSync

JOIN_POLL_S = 0.1  # between two looks whether an engine serves
BARE_S = 10.0  # in which an engine may come to an episode worker that has none
HAND_OVER_S = 10.0  # for a leaving engine to give back the tokens of its unfinished completions


class Fleet:
    """Keeps the number of engines that the run wants. The life of an engine:

        starting    the actor waits for room in the cluster, starts, and loads the model
        joining     the engine loads the current weights, and is compared with a serving engine
        seated      an episode worker gives the engine work
        leaving     other engines go on with the completions from their tokens; then the actor ends

    The end of an engine starts another engine, unless the run wants fewer. Methods are for the background's event loop,
    except for `lose`. No sync, take or evaluation waits for an engine that joins or leaves.
    """

    def __init__(
        self,
        run: RunConfig,
        engines: EngineActors,
        rollouts: RolloutPool,
        episodes: EpisodePool | None,
        weights: WeightSync | None,
        background: Background,
        warn: Callable[[str], None],
    ) -> None:
        """`rollouts` has the run's first engines, which episode workers know. `warn`: for the console, any thread."""
        self.run = run
        self.engines = engines
        self.rollouts = rollouts
        self.episodes = episodes
        self.weights = weights
        self.background = background
        self.warn = warn
        self.losses = Losses(run.rollout.max_losses)
        self.seated = {replica.name: replica for replica in rollouts.replicas}
        self.coming: dict[str, Replica] = {}  # starting or joining
        self.leaving: set[str] = set()
        self.target = len(self.seated)  # engines that the run wants
        self._short_since: float | None = None  # fewer engines than `min` have started
        self._bare_since: dict[str, float] = {}  # episode worker without an engine -> time
        rollouts.on_loss = self.lose
        rollouts.subscribe(self._on_version)

    def lose(self, name: str, reason: str) -> None:
        """Replaces a broken or dead engine, without waiting for the replacement; for any thread."""
        self.background.spawn(self.replace(name, reason))

    def states(self) -> dict[str, int]:
        """`ENGINE_STATES` -> engines. For any thread."""
        known = {replica.name for replica in self.rollouts.replicas}
        joining = sum(name in known for name in list(self.coming))
        return {
            "wanted": self.target,
            "starting": len(self.coming) - joining,
            "joining": joining,
            "serving": len(self.seated),
            "leaving": len(self.leaving),
        }

    @property
    def lost_share(self) -> float:
        """Share of the wanted engines that were lost and have no successor yet. For any thread."""
        missing = min(self.losses.total - self.losses.recovered, self.target - len(self.seated))
        return max(0, missing) / self.target if self.target else 0.0

    def scale(self, target: int) -> None:
        """Wants `target` engines from now on."""
        self.target = target
        self.balance()

    def balance(self) -> None:
        """Makes engines that are missing, and lets engines leave that are too many."""
        missing = self.target - len(self.seated) - len(self.coming)
        for _ in range(missing):
            self.background.start(self._come(self._make()))
        for _ in range(-missing):
            replica = self._take_out(self._expendable())
            assert replica is not None
            self.background.start(self._dismiss(replica, f"{self.target} engines are wanted"))

    async def add(self) -> Replica:
        """Adds an engine to the wanted number -> the engine. It serves, or with nccl it will serve after the next sync.

        Raises the engine's error, and RunFailed in a colocated run.
        """
        replica = self._make()
        self.target += 1
        try:
            await self._start(replica)
        except BaseException:
            self.target -= 1
            self._take_out(replica.name)
            await self.engines.end(replica)
            raise
        joining = self.background.start(self._join(replica))
        if replica.state == ReplicaState.SERVING:
            await joining
        return replica

    async def remove(self, name: str) -> None:
        """Takes an engine off the wanted number, and lets this engine leave."""
        self.target -= 1
        await self.leave(name, "it is asked to leave")

    async def leave(self, name: str, reason: str) -> None:
        """Takes an engine out; other engines go on with its unfinished completions, from their tokens."""
        if replica := self._take_out(name):
            self.balance()  # another engine starts meanwhile
            await self._dismiss(replica, reason)

    async def replace(self, name: str, reason: str) -> None:
        """Ends a broken or dead engine, whose devices its successor may need, and makes the successor.

        Raises RunFailed after too many losses, and where no engine can be made.
        """
        if (replica := self._take_out(name)) is None:
            return  # its end was told before
        await self._mark_dead(replica)
        if self.episodes is not None:
            await self.episodes.leave_engine(name, hand_over=False)
        words = await self.engines.end(replica)
        self.losses.add(name, reason, words, self.target)
        try:
            self.balance()
        except RunFailed as error:
            raise RunFailed(f"{name} was broken ({reason}), and no engine can take its place: {error}") from error
        self.warn(f"{name} is broken, and another engine takes its place: {reason}")

    def check(self) -> None:
        """Raises Stalled where fewer engines than `rollout.engines.min` have started for `cluster.start_timeout_s`."""
        now, least, bound_s = self.background.now(), self.run.rollout.engines.min, self.run.cluster.start_timeout_s
        started = len(self._started())
        if started >= least:
            self._short_since = None
        elif self._short_since is None:
            self._short_since = now
        elif now - self._short_since >= bound_s:
            raise Stalled(
                f"rollout.engines: {started} of at least {least} engines are there for {bound_s:g} s "
                f"(cluster.start_timeout_s), and {', '.join(self.coming)} did not start; the cluster's nodes: "
                f"{nodes.describe(nodes.living())}"
            )

    async def share(self) -> None:
        """Moves an engine to an episode worker that has had none for `BARE_S`.

        Otherwise the worker's completions would wait for an engine, and the cluster may have no room for a new engine.
        """
        workers = [worker for worker in self.episodes.workers.values() if not worker.lost] if self.episodes else []
        bare, now = {worker.name for worker in workers if not worker.engines}, self.background.now()
        self._bare_since = {name: self._bare_since.get(name, now) for name in bare}
        if not any(now - since >= BARE_S for since in self._bare_since.values()):
            return
        richest = max(workers, key=lambda worker: len(worker.engines))
        movable = [name for name in richest.engines if name in self.seated]
        if self.episodes is not None and len(movable) > 1:
            replica = self.seated[movable[-1]]
            await self.episodes.leave_engine(replica.name, hand_over=True)
            await self._seat(replica)  # unless it was lost meanwhile

    def _make(self) -> Replica:
        replica = self.engines.make_further()
        self.coming[replica.name] = replica
        return replica

    async def _come(self, replica: Replica) -> None:
        """Lets an engine start and join. An engine that fails is replaced."""
        try:
            await self._start(replica)
        except (RayError, RunFailed) as error:
            await self._fail(replica, error)
        else:
            await self._join(replica)

    async def _start(self, replica: Replica) -> None:
        """Waits for an engine's start, and brings the current weights unless the next sync will bring weights."""
        await self.engines.start(replica)
        self.rollouts.replicas.join(replica)
        if self.weights is None:
            self.rollouts.replicas.serve(replica)
        else:
            await self.weights.bring(replica)

    async def _join(self, replica: Replica) -> None:
        """Gives an engine work, once the engine serves and its log-probabilities agree with a serving engine's."""
        try:
            while replica.state in (ReplicaState.STARTING, ReplicaState.QUARANTINED):
                await asyncio.sleep(JOIN_POLL_S)
            if replica.state == ReplicaState.DEAD:
                return
            bound, timeout_s = self.run.mismatch.max_abs_mean, self.run.cluster.stall_timeout_s
            if problem := await parity.difference(replica, self._serving, bound, timeout_s, self.warn):
                raise RunFailed(problem)
        except (RayError, RunFailed) as error:
            return await self._fail(replica, error)
        if self.coming.pop(replica.name, None):
            self.seated[replica.name] = replica
            self.losses.recover(max(0, self.target - len(self.seated)))
            await self._seat(replica)
            self.background.notify()

    async def _seat(self, replica: Replica) -> None:
        """Lets the episode worker with the fewest slots give work to an engine."""
        if self.episodes is not None and replica.name in self.seated:
            slots = self.run.rollout.slots
            await self.episodes.join_engine(EngineSeat(name=replica.name, handle=replica.handle, slots=slots))

    async def _fail(self, replica: Replica, error: RayError | RunFailed) -> None:
        """Replaces an engine that failed before it had work, unless it was ended on purpose."""
        if replica.name in self.coming:
            reason = str(error) if isinstance(error, RunFailed) else await asyncio.to_thread(describe, error)
            await self.replace(replica.name, reason)

    def _take_out(self, name: str) -> Replica | None:
        """Strikes an engine off the run's engines -> the engine; None: it was struck off before."""
        return self.coming.pop(name, None) or self.seated.pop(name, None)

    async def _dismiss(self, replica: Replica, reason: str) -> None:
        """Lets an engine hand over its completions, and ends the actor."""
        self.warn(f"{replica.name} leaves: {reason}")
        self.leaving.add(replica.name)
        try:
            await self._hand_over(replica)
        finally:
            self.leaving.discard(replica.name)

    async def _hand_over(self, replica: Replica) -> None:
        started = replica in self._started()
        await self._mark_dead(replica)
        if not started:
            await self.engines.end(replica)
            return
        if self.episodes is not None:
            with suppress(TimeoutError, RayError):
                await asyncio.wait_for(self.episodes.leave_engine(replica.name, hand_over=True), HAND_OVER_S)
        await self.engines.dismiss(replica)

    async def _mark_dead(self, replica: Replica) -> None:
        """Lets nobody bring weights or work to an engine any more."""
        if replica not in self._started():
            replica.state = ReplicaState.DEAD
        elif self.weights is not None:
            await asyncio.to_thread(self.weights.end, replica.name)
        else:
            self.rollouts.replicas.end(replica.name)
        self.background.notify()

    def _expendable(self) -> str:
        """The engine to give up: the youngest that has no work yet, else of the episode worker with most engines."""
        if self.coming:
            return next(reversed(self.coming))
        workers = self.episodes.workers.values() if self.episodes else []
        shares = [[name for name in worker.engines if name in self.seated] for worker in workers]
        return max(shares, key=len, default=list(self.seated))[-1]

    def _started(self) -> list[Replica]:
        return [replica for replica in self.rollouts.replicas if replica.state != ReplicaState.DEAD]

    def _serving(self) -> list[Replica]:
        return [replica for replica in self.seated.values() if replica.state == ReplicaState.SERVING]

    async def _on_version(self, _: int) -> None:
        self.losses.step()
