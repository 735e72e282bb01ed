"""vLLM as a plain async class: prompts in, completions out as each ends, new weights in between."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlframe.types import Completion, Loaded, Prompt, SampledCompletion, Sampling, VersionSpan

if TYPE_CHECKING:
    from vllm.v1.engine.output_processor import RequestOutputCollector

    from rlframe.rollout.config import RolloutConfig
    from rlframe.weights.publish import Snapshot

MIN_BATCHED_TOKENS = 8192  # a step's prefill; a prompt never waits because of it


class VLLMEngine:
    """One replica of the policy, drawing completions with vLLM's `AsyncLLM`."""

    def __init__(self, name: str, config: RolloutConfig, model_path: Path, max_model_len: int, backend: str) -> None:
        """`max_model_len`: tokens of a prompt and its completion together; `backend`: of vLLM's weight transfer."""
        self.name = name
        os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(config.kv_cache_gib)
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        from vllm import AsyncEngineArgs
        from vllm.config import WeightTransferConfig
        from vllm.platforms import current_platform
        from vllm.v1.engine.async_llm import AsyncLLM

        device: dict[str, Any] = {"gpu_memory_utilization": config.gpu_memory_share}
        if current_platform.is_cpu():
            # One process that schedules and computes: with two, the scheduler spins on a core while it waits, and
            # computing is left one core less. vLLM falls back to two unless its clients' multiprocessing is off.
            os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
            # A prompt prefilled in parts with a seed of its own ends vLLM's CPU worker.
            device = {"enable_chunked_prefill": False, "distributed_executor_backend": "uni"}
            if _attends_to_latents(model_path):
                # vLLM's CPU kernel rotates heads at wrong positions where they are a dimension of their own.
                device["compilation_config"] = {"custom_ops": ["-rotary_embedding"]}
                # Where a processor has AMX, vLLM takes a backend that knows 16 bits only, and ends at float32.
                device["attention_backend"] = "CPU_MLA"
            else:
                # A group shares its prompt by whole blocks of keys and values, and vLLM's on a CPU have 128 tokens:
                # most of a short prompt would be computed for every completion anew. Its kernels take no less.
                device["block_size"] = 32
        self.llm = AsyncLLM.from_engine_args(
            AsyncEngineArgs(
                model=str(model_path),
                dtype=config.dtype,
                max_model_len=max_model_len,
                max_num_seqs=config.max_concurrent,
                max_num_batched_tokens=max(max_model_len, MIN_BATCHED_TOKENS),
                tensor_parallel_size=max(1, config.gpus),
                enable_prefix_caching=True,
                enable_return_routed_experts=config.routed_experts,
                enforce_eager=not config.compile,
                # Of the distribution that was sampled from, after temperature.
                logprobs_mode="processed_logprobs",
                generation_config="vllm",
                weight_transfer_config=WeightTransferConfig(backend=backend),
                enable_log_requests=False,
                disable_log_stats=True,
                **device,
            )
        )
        self.tokenizer = self.llm.get_tokenizer()
        self.in_flight = 0  # completions
        self.requests = 0  # since the start; vLLM wants every request id to be new
        self.gate = asyncio.Condition()  # held by whoever pauses and resumes vLLM's scheduler
        self.held: Snapshot | None = None
        self.differing: set[str] = set()  # tensors of `held` that failed their checksums: nothing is drawn with them
        self.paused_at = 0.0

    def __repr__(self) -> str:  # Ray's errors and logs name the actor by this
        return self.name

    async def join_object_store(self, address: str, namespace: str) -> None:
        """Lets the engine's worker process reach the cluster's object store, and this actor by its name."""
        from vllm.distributed.weight_transfer.base import WeightTransferInitRequest

        init = {"address": address, "namespace": namespace, "holder": self.name}
        await self.llm.init_weight_transfer_engine(WeightTransferInitRequest(init_info=init))

    async def stamp(self, version: int) -> None:
        """What is drawn from now on is the policy's `version`."""
        await self.llm.update_weight_version(str(version))

    async def generate(self, prompts: list[Prompt], sampling: Sampling) -> AsyncIterator[SampledCompletion]:
        """Every prompt's completions, each as it ends.

        With nothing else in flight they all enter in one step of the scheduler, so that the batches that form,
        and with them the last bits of every log-probability, do not depend on timing.
        """
        async with self.gate:
            await self.gate.wait_for(lambda: not self.differing)
            together = self.in_flight == 0
            self.in_flight += len(prompts) * sampling.completions
            if together:
                await self.llm.pause_generation(mode="keep", clear_cache=False)
            requests = []
            for prompt in prompts:
                for index in range(sampling.completions):
                    requests.append((prompt, index, await self._add(prompt, index, sampling)))
            if together:
                await self.llm.resume_generation()
        tasks = [asyncio.create_task(self._drawn(prompt, index, queue)) for prompt, index, queue in requests]
        try:
            for task in asyncio.as_completed(tasks):
                yield await task
        finally:
            self.in_flight -= len(tasks)
            for task in tasks:
                task.cancel()

    async def _add(self, prompt: Prompt, index: int, sampling: Sampling) -> RequestOutputCollector:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        parameters = SamplingParams(
            n=1,
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            seed=request_seed(sampling.seed, prompt.id, index),
            logprobs=0,  # of the drawn token alone
            flat_logprobs=True,
            detokenize=False,  # token by token; a whole completion takes one call
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        self.requests += 1
        request_id = f"{prompt.id}#{index}/{self.requests}"
        return await self.llm.add_request(request_id, {"prompt_token_ids": prompt.token_ids}, parameters)

    async def _drawn(self, prompt: Prompt, index: int, queue: RequestOutputCollector) -> SampledCompletion:
        request: Any = await queue.get()
        output = request.outputs[0]
        token_ids = list(output.token_ids)
        ended = output.finish_reason == "stop"  # by a token that is no text
        return SampledCompletion(
            prompt_id=prompt.id,
            index=index,
            completion=Completion(
                token_ids=token_ids,
                logprobs=list(output.logprobs.logprobs),
                versions=[
                    VersionSpan(version=int(span.version), start=span.start, end=span.end)
                    for span in output.weight_versions
                ],
                text=self.tokenizer.decode(token_ids[:-1] if ended else token_ids, skip_special_tokens=True),
                finish_reason=output.finish_reason,
                cached_tokens=request.num_cached_tokens or 0,
                routed_experts=output.routed_experts,
            ),
        )

    def published(self, version: int) -> Snapshot:
        """What this engine is loading: its worker process asks for the references."""
        if self.held is None or self.held.version != version:
            raise RuntimeError(f"asked for weights of version {version}, but hold {self.held and self.held.version}")
        return self.held

    def report(self, differing: set[str]) -> None:
        """A worker process has loaded its part; these tensors are not what the learner holds."""
        self.differing |= differing

    async def load(self, snapshot: Snapshot) -> Loaded:
        """Freezes what is in flight, loads the weights, and lets it go on with them, if their checksums hold.

        The weights are brought to this node before, while completions are still drawn. After a load that failed
        the checksums the engine draws nothing until one has passed them.
        """
        from vllm.distributed.weight_transfer.base import WeightTransferUpdateRequest

        await asyncio.to_thread(snapshot.fetch)
        async with self.gate:
            if not self.differing:
                self.paused_at = time.monotonic()
            self.held, self.differing = snapshot, set()
            await self.pause()
            await self.llm.start_weight_update()
            await self.llm.update_weights(WeightTransferUpdateRequest(update_info={"version": snapshot.version}))
            await self.llm.finish_weight_update()
            if not self.differing:
                await self.resume(snapshot.version)
                self.gate.notify_all()
            return Loaded(stall_s=time.monotonic() - self.paused_at, differing=sorted(self.differing))

    async def pause(self) -> None:
        """Freezes requests; their keys and values are computed anew with the next weights."""
        await self.llm.pause_generation(mode="keep", clear_cache=True)

    async def resume(self, version: int) -> None:
        await self.stamp(version)
        await self.llm.resume_generation()

    # The four calls of vLLM's `VLLMWeightSyncClient`, by which its own trainer engines (nccl, ipc) drive an update.
    async def init_weight_transfer_engine(self, request: Any) -> None:
        await self.llm.init_weight_transfer_engine(request)

    async def start_weight_update(self) -> None:
        await self.llm.start_weight_update()

    async def update_weights(self, request: Any) -> None:
        await self.llm.update_weights(request)

    async def finish_weight_update(self) -> None:
        await self.llm.finish_weight_update()

    def shutdown(self) -> None:
        """Ends vLLM's own processes."""
        self.llm.shutdown()


def _attends_to_latents(model_path: Path) -> bool:
    """Whether the model has DeepSeek's multi-head latent attention."""
    return "kv_lora_rank" in json.loads((model_path / "config.json").read_text())


def request_seed(seed: int, prompt_id: str, index: int) -> int:
    """A seed of its own for each completion, the same in every run of one seed."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{prompt_id}/{index}".encode()).digest()[:7], "big")
