"""`EngineActors`: makes the actors of a run's engines, at the start and at any later time, and ends them."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayError

from rlframe.actors.logs import last_lines
from rlframe.actors.replicas import Handle, Replica, ReplicaState
from rlframe.actors.table import entry_of
from rlframe.cluster import nodes
from rlframe.cluster.actor import CONCURRENT_CALLS, node_of, start_actor, wait_for
from rlframe.cluster.gang import Gang
from rlframe.cluster.placement import LEARNER, Slot, engine_slot
from rlframe.errors import RunFailed, Stalled
from rlframe.rollout.arguments import EngineSettings

if TYPE_CHECKING:
    from ray import ObjectRef

    from rlframe.config.run import RunConfig
    from rlframe.model.config import LoraConfig

START_POLL_S = 1.0  # between two looks whether an engine that starts has a process
GOODBYE_S = 10.0  # for an engine to end its own processes


class EngineActors:
    """Engines are numbered in the order of their making, and no number is used twice in a run."""

    def __init__(self, run: RunConfig, model_path: Path, namespace: str, handles: dict[str, Handle]) -> None:
        """`handles`: of all actors of the run, by name; the engines' are kept up to date."""
        self.run = run
        self.model_path = model_path
        self.namespace = namespace
        self.handles = handles
        self.start_empty = False  # the first weights come by a sync
        self.lora: LoraConfig | None = None  # set if adapters travel alone, to engines with the base weights
        self._made = 0
        self._gangs: dict[str, Gang] = {}  # of engines that span nodes

    def make(self, slot: Slot, gang: Gang) -> Replica:
        """Makes the actor of a slot, which starts once the cluster has room."""
        if slot.workers:
            gang = self._gangs[slot.name] = Gang([slot])
        self._made = max(self._made, slot.index + 1)
        engine_class, arguments = self.engine_class(slot)
        options: dict[str, Any] = {"max_concurrency": CONCURRENT_CALLS} | gang.options(slot)
        handle = start_actor(slot, engine_class, arguments, self.handles, **options)
        return Replica(name=slot.name, handle=handle, state=ReplicaState.STARTING)

    def engine_class(self, slot: Slot) -> tuple[type, tuple[Any, ...]]:
        """The class of a slot's engine, and its arguments after the name."""
        from rlframe.rollout.vllm import VLLMEngine

        run = self.run
        settings = EngineSettings(
            max_model_len=run.max_model_len,
            backend=run.weights.backend,
            head_dtype=run.learner.head_dtype,
            empty=self.start_empty,
            lora=self.lora,
            shares_gpus=slot.gang == LEARNER,
            executor="ray" if slot.workers else "mp",
        )
        return VLLMEngine, (run.rollout, self.model_path, settings)

    def make_further(self) -> Replica:
        """Makes the actor of one more engine. Raises RunFailed in a colocated run."""
        if self.run.placement == "colocated":
            raise RunFailed(
                "placement=colocated: every GPU has its rank and its engine from the start; an engine can be added "
                "with placement=separate only"
            )
        slot = engine_slot(self.run.rollout, self._made, nodes.most_gpus(nodes.living()))
        return self.make(slot, Gang([]))

    def connect(self, engines: list[Replica]) -> dict[str, ObjectRef]:
        """The calls by which engines reach the object store, if weights come through it, by name."""
        if self.run.weights.backend != "object_store":
            return {}
        address = ray.get_runtime_context().gcs_address
        return {engine.name: engine.handle.join_object_store.remote(address, self.namespace) for engine in engines}

    def stamp(self, engines: list[Replica], deadline: float) -> None:
        """Lets engines mark their tokens as those of version 0."""
        wait_for({engine.name: engine.handle.stamp.remote(0) for engine in engines}, "take version 0", deadline)

    async def start(self, engine: Replica) -> None:
        """Returns once an engine can load weights.

        The wait for room in the cluster has no bound. Raises the engine's error, and Stalled for an engine that has
        room and does not start within `cluster.start_timeout_s`.
        """
        bound_s = self.run.cluster.start_timeout_s
        late = Stalled(f"{engine.name} has room, and did not start within {bound_s:g} s (cluster.start_timeout_s)")
        ready = asyncio.ensure_future(engine.handle.__ray_ready__.remote())
        process_since: float | None = None
        try:
            while not (await asyncio.wait({ready}, timeout=START_POLL_S))[0]:
                now = asyncio.get_running_loop().time()
                if not await asyncio.to_thread(node_of, engine.handle):
                    process_since = None
                elif process_since is None:
                    process_since = now
                elif now - process_since >= bound_s:
                    raise late
            ready.result()
        finally:
            ready.cancel()
        try:
            async with asyncio.timeout(bound_s):
                for call in self.connect([engine]).values():
                    await call
                await engine.handle.stamp.remote(0)
        except TimeoutError:
            raise late from None

    async def end(self, engine: Replica) -> str:
        """Ends an engine's actor, whose devices another engine may need -> the last lines of its output."""
        words = await asyncio.to_thread(_last_words, engine)
        self._kill(engine)
        return words

    async def dismiss(self, engine: Replica) -> None:
        """Lets an engine end its own processes, then ends the actor."""
        with suppress(RayError, TimeoutError):
            await asyncio.wait_for(engine.handle.shutdown.remote(), GOODBYE_S)
        self._kill(engine)

    def nodes(self, engine: Replica) -> set[str]:
        """Ids of the nodes on which an engine's processes run; empty while it waits for room."""
        gang = self._gangs.get(engine.name)
        return node_of(engine.handle) | (gang.nodes() if gang else set())

    def _kill(self, engine: Replica) -> None:
        ray.kill(engine.handle)
        self.handles.pop(engine.name, None)
        if gang := self._gangs.pop(engine.name, None):
            gang.release()


def _last_words(engine: Replica) -> str:
    pid = entry_of(engine.handle).get("Pid")
    return "\n".join(f"  {line}" for line in last_lines(engine.name, pid)) if pid else ""
