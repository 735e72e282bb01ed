"""`VLLMEngine`: vLLM as a plain async class. Prompts go in, completions come out, and weights change in between."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import ray

from rlframe.actors.collector import collector_paused
from rlframe.errors import RunFailed
from rlframe.model.base_model import require
from rlframe.rollout import adapters, plugin
from rlframe.rollout.adapters import Adapters
from rlframe.rollout.arguments import EngineSettings, engine_arguments
from rlframe.rollout.death import EngineDead, deaths_of
from rlframe.rollout.in_flight import InFlight
from rlframe.rollout.messages import EngineProgress, Probe
from rlframe.rollout.partials import Partials
from rlframe.rollout.requests import Request
from rlframe.training import Loaded
from rlframe.types import Prompt, SampledCompletion, SampledTokens, Sampling

if TYPE_CHECKING:
    from vllm.lora.request import LoRARequest

    from rlframe.rollout.config import RolloutConfig
    from rlframe.weights.snapshot import Snapshot

DIFFERING = "differing_weights"  # method of `VerifiedWorker`
UNVERIFIED = "all tensors, which an update has begun to overwrite"


class VLLMEngine:
    """A replica of the policy, which samples completions with vLLM's `AsyncLLM`."""

    def __init__(self, name: str, config: RolloutConfig, model_path: Path, settings: EngineSettings) -> None:
        self.name = name
        require(model_path)
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        os.environ[plugin.ENGINE] = name
        if settings.backend == "ipc":
            # Handles of GPU memory contain Python types, which vLLM passes on to its processes as pickles only.
            os.environ["VLLM_ALLOW_INSECURE_SERIALIZATION"] = "1"
        # vLLM alone would take the address on the route to the internet, which may differ from this node's in Ray.
        os.environ.setdefault("VLLM_HOST_IP", ray.util.get_node_ip_address())
        # vLLM's scheduler is another process. It finds the cluster by this variable if Ray starts the workers.
        os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
        with collector_paused():
            arguments = engine_arguments(config, model_path, settings)
            from vllm import AsyncEngineArgs
            from vllm.v1.engine.async_llm import AsyncLLM

            from rlframe.rollout.counters import Counters

        lora = settings.lora
        arguments |= adapters.engine_arguments(lora) if lora else {}
        self.counters = Counters()
        self.llm = AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments), stat_loggers=[self.counters])
        self.adapters = Adapters(self.llm, lora, model_path) if lora else None
        self.in_flight = InFlight(self.llm)
        self.gate = asyncio.Condition()  # held by the task that pauses and resumes vLLM's scheduler
        self.snapshot: Snapshot | None = None  # the version that is being loaded
        self.differing: set[str] = set()  # tensors with wrong checksums; until healed, the engine samples nothing
        self.keeps_cache = config.cache == "keep"
        self.version = 0  # of the policy that samples
        self.loading = False  # frozen until new weights are loaded and verified
        self.paused_at = 0.0
        self.asleep = False

    def __repr__(self) -> str:  # Ray's errors and logs name the actor by this
        return self.name

    async def join_object_store(self, address: str, namespace: str) -> None:
        """Lets the engine's worker processes reach the cluster's object store, and this actor by name.

        With weights.adapters=alone this actor reads the store itself, and the worker processes need no Ray.
        """
        if self.adapters:
            return await self.adapters.reset()
        from vllm.distributed.weight_transfer.base import WeightTransferInitRequest

        init = {"address": address, "namespace": namespace, "holder": self.name}
        await self.llm.init_weight_transfer_engine(WeightTransferInitRequest(init_info=init))

    async def stamp(self, version: int) -> None:
        """Marks all tokens from now on as sampled by the policy's `version`."""
        await self.llm.update_weight_version(str(version))
        self.version = version

    async def progress(self, with_partials: bool = False) -> EngineProgress:
        """The engine's work since its start, as of now. `with_partials`: tells each new token, once.

        Raises EngineDead.
        """
        if self.llm.errored:
            raise EngineDead(f"vLLM's processes of {self.name} have died")
        return EngineProgress(
            tokens=self.counters.tokens,
            version=self.version,
            loading=self.loading,
            busy_slot_s=self.counters.integrate(frozen=self.loading),
            recomputed_tokens=self.counters.recomputed_tokens,
            partials=self.in_flight.new_tokens() if with_partials else None,
        )

    async def generate(
        self,
        prompts: list[Prompt],
        sampling: Sampling,
        indices: dict[str, list[int]] | None = None,
        prefixes: dict[str, dict[int, SampledTokens]] | None = None,
        call: str = "",
    ) -> AsyncIterator[SampledCompletion]:
        """Every prompt's completions, each as it ends.

        `indices`: prompt id -> completions to sample; None: all. `prefixes`: prompt id -> index -> first tokens of a
        completion, after which to go on. `call`: the name by which `progress` and `release` tell its tokens.

        If the engine is idle, all requests enter in the same step of vLLM's scheduler. Then timing changes neither the
        batches nor the last bits of the log-probabilities. After `release` it ends early. Raises EngineDead.
        """
        requests = [
            Request(
                prompt=prompt,
                index=index,
                sampling=sampling,
                call=call,
                given=prefixes.get(prompt.id, {}).get(index) if prefixes else None,
            )
            for prompt in prompts
            for index in (indices[prompt.id] if indices else range(sampling.completions))
        ]
        tasks: list[asyncio.Task[SampledCompletion | None]] = []
        try:
            with deaths_of(self.llm, self.name):
                await self._start(requests, tasks)
                for task in asyncio.as_completed(tasks):
                    if (sampled := await task) is not None:
                        yield sampled
        finally:
            for task in tasks:
                task.cancel()

    async def _start(self, requests: list[Request], tasks: list[asyncio.Task[SampledCompletion | None]]) -> None:
        """Lets requests enter vLLM, once it samples, and adds the tasks that wait for them to `tasks`."""
        releases = self.in_flight.releases
        async with self.gate:
            await self.gate.wait_for(lambda: not self.differing)
            if self.asleep:
                raise RuntimeError(
                    f"{self.name} sleeps, because the learner has its GPU; bring it weights (WeightSync.sync) first"
                )
            idle = not self.in_flight
            if idle:
                await self.llm.pause_generation(mode="keep", clear_cache=False)
            try:
                for request in requests:
                    if releases != self.in_flight.releases:
                        break
                    tasks.append(await self.in_flight.start(request, self._salt(), self._lora()))
            finally:
                if idle:
                    await self.llm.resume_generation()

    async def release(self) -> Partials | None:
        """Gives up all unfinished completions and ends their calls -> all their tokens; waits for no load."""
        return await self.in_flight.release()

    async def probe(self, token_ids: list[int]) -> Probe:
        """Log-probabilities of fixed tokens under the engine's weights, without a temperature. Raises EngineDead.

        An engine without a free slot takes long, and no load waits for it: a probe across a load is asked anew.
        """
        while True:
            async with self.gate:
                await self.gate.wait_for(lambda: not self.differing)
                paused_at, version = self.paused_at, self.version
            with deaths_of(self.llm, self.name):
                logprobs = await self.in_flight.probe(token_ids, self._lora())
            if paused_at == self.paused_at:
                return Probe(version=version, logprobs=logprobs)

    def _salt(self) -> str | None:
        """The salt of the prefix cache."""
        return str(self.version) if self.keeps_cache else None

    def _lora(self) -> LoRARequest | None:
        return self.adapters.request() if self.adapters else None

    async def load(self, snapshot: Snapshot) -> Loaded:
        """Freezes requests in flight, loads and verifies the weights, and resumes the requests with the new weights.

        The weights come to this node's object store first, while the engine still samples. After a load with a wrong
        checksum the engine samples nothing until a load with right checksums.
        """
        await asyncio.to_thread(snapshot.fetch)
        async with self.gate:
            await self._freeze()
            if self.adapters:
                return await self._go_on(snapshot.version, await self.adapters.load(snapshot))
            self.snapshot = snapshot
            await self.start_weight_update()
            await self.update_weights({"version": snapshot.version})
            await self.finish_weight_update()
            self.snapshot = None  # lets the object store drop the version
            return await self._go_on(snapshot.version, await self._differing({}))

    def published(self, version: int) -> Snapshot:
        """The references of the version that is being loaded; the worker process calls this during `load`."""
        if self.snapshot is None or self.snapshot.version != version:
            loaded_version = self.snapshot and self.snapshot.version
            raise RuntimeError(f"asked for weights of version {version}, but {self.name} has {loaded_version}")
        return self.snapshot

    # By weights.backend nccl and ipc an update is: pause, the four methods that `EngineClient` calls, resume.
    async def pause(self) -> None:
        """Freezes requests, and lets no new request enter before `resume`."""
        await self.gate.acquire()
        await self._freeze()

    async def resume(self, version: int, fingerprints: dict[str, int]) -> Loaded:
        """Resumes requests with the weights since `pause`, if the weights have the learner's `fingerprints`."""
        try:
            return await self._go_on(version, await self._differing(fingerprints))
        finally:
            self.gate.release()

    async def sleep(self) -> None:
        """Discards weights and key/value cache, so that another process can use the GPU. On a CPU nothing is freed.

        Raises RunFailed where completions are in flight: a sleeping engine would never finish them.
        """
        async with self.gate:
            if self.in_flight:
                raise RunFailed(
                    f"placement=colocated: the learner's turn begins while {self.name} has {len(self.in_flight)} "
                    "completions in flight; take every sampled group before the step (max_staleness=0), or use "
                    "placement=separate"
                )
            self.asleep = True
            await self.llm.sleep(level=2)

    async def wake(self, part: Literal["weights", "kv_cache"]) -> None:
        """Allocates GPU memory: first for the weights, whose values come by a sync, then for the key/value cache."""
        async with self.gate:
            self.asleep = not await self.llm.wake_up(tags=[part])

    async def join_learner(self, init_info: dict[str, Any]) -> None:
        """Lets the worker processes meet the learner's ranks, and leave the group of an earlier meeting."""
        from vllm.distributed.weight_transfer.base import WeightTransferInitRequest

        await self.llm.shutdown_weight_transfer_engine()
        await self.llm.init_weight_transfer_engine(WeightTransferInitRequest(init_info=init_info))

    async def start_weight_update(self) -> None:
        await self.llm.start_weight_update()

    async def update_weights(self, update_info: Any) -> None:
        from vllm.distributed.weight_transfer.base import WeightTransferUpdateRequest

        await self.llm.update_weights(WeightTransferUpdateRequest(update_info=update_info))

    async def finish_weight_update(self) -> None:
        await self.llm.finish_weight_update()

    async def _freeze(self) -> None:
        """Freezes requests. Unless rollout.cache=keep, the next weights compute their keys and values again.

        An update that raises leaves the engine frozen, since some tensors are old and some new.
        """
        if not self.differing:
            self.paused_at = time.monotonic()
            self.differing = {UNVERIFIED}
        await self.llm.pause_generation(mode="keep", clear_cache=not self.keeps_cache)
        self.counters.integrate(frozen=self.loading)
        self.loading = True

    async def _differing(self, fingerprints: dict[str, int]) -> set[str]:
        """Names of tensors that differ from the learner's in any worker process, after an update."""
        client: Any = self.llm.engine_core  # AsyncLLM.collective_rpc answers for the first data-parallel replica alone
        answers = await client.call_utility_all_async("collective_rpc", DIFFERING, None, (fingerprints,), {})
        return {name for replica in answers for worker_names in replica for name in worker_names}

    async def _go_on(self, version: int, differing: set[str]) -> Loaded:
        """Resumes frozen requests as the policy's `version`, unless tensors are `differing`."""
        self.differing = differing
        if not self.differing:
            await self.stamp(version)
            if self.keeps_cache:
                await self.in_flight.restart_waiting(str(version), self._lora())
            self.counters.integrate(frozen=True)
            await self.llm.resume_generation()
            self.loading = False
            self.gate.notify_all()
        return Loaded(stall_s=time.monotonic() - self.paused_at, mismatched_tensors=sorted(self.differing))

    def shutdown(self) -> None:
        """Ends vLLM's own processes."""
        self.llm.shutdown()
