"""`Adapters`: a policy's low-rank adapters in vLLM, where the base weights never change and adapters travel alone."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlframe.model import lora
from rlframe.rollout.rebuild import differing, rebuild
from rlframe.weights.config import ADAPTER_RANKS

if TYPE_CHECKING:
    from torch import Tensor
    from vllm.lora.request import LoRARequest
    from vllm.v1.engine.async_llm import AsyncLLM

    from rlframe.model.config import LoraConfig
    from rlframe.weights.snapshot import Snapshot

MEMORY = Path("/dev/shm")  # files in memory, where the machine has it


def engine_arguments(config: LoraConfig) -> dict[str, Any]:
    """Arguments of `AsyncEngineArgs` for an engine with one adapter of this size and these targets."""
    return {
        "enable_lora": True,
        "max_loras": 1,
        "max_lora_rank": next(rank for rank in ADAPTER_RANKS if rank >= config.rank),
        "lora_target_modules": config.targets,
    }


class Adapters:
    """The adapter of an engine, which vLLM replaces in place. vLLM reads adapters from a folder only.

    Every request samples with the adapter. A request that was frozen meanwhile goes on with the new values, because
    the adapter keeps its name and its number.
    """

    def __init__(self, llm: AsyncLLM, config: LoraConfig, base: Path) -> None:
        """`base`: the folder of the base model."""
        self.llm = llm
        self.config = config
        self.base = base

    def request(self, folder: str = "in memory", *, load: bool = False) -> LoRARequest:
        """vLLM's name of the adapter. `load`: vLLM reads the adapter in `folder`, in place of its present values."""
        from vllm.lora.request import LoRARequest

        return LoRARequest("policy", 1, folder, load_inplace=load)

    async def reset(self) -> None:
        """Loads an adapter that changes nothing, for version 0 of the policy. Raises ValueError for unknown targets."""
        await self._load(lora.unchanging(self.base, self.config))

    async def load(self, snapshot: Snapshot) -> set[str]:
        """Loads the adapter of a version, if all checksums are right -> names of tensors with wrong checksums."""
        tensors, broken = await asyncio.to_thread(_read, snapshot)
        if not broken:
            await self._load(tensors)
        return broken

    async def _load(self, tensors: dict[str, Tensor]) -> None:
        with tempfile.TemporaryDirectory(prefix="rlframe-adapter-", dir=MEMORY if MEMORY.is_dir() else None) as parent:
            folder = Path(parent, "adapter")
            await asyncio.to_thread(lora.write, tensors, self.config, self.base, folder)
            await self.llm.add_lora(self.request(str(folder), load=True))


def _read(snapshot: Snapshot) -> tuple[dict[str, Tensor], set[str]]:
    """Every tensor by the learner's name, and the names of those with wrong checksums."""
    tensors: dict[str, Tensor] = {}
    broken: set[str] = set()
    for shards in snapshot.read():
        bucket = rebuild(shards)
        broken |= differing(shards, bucket)
        tensors |= bucket
    if missing := set(snapshot.names) - tensors.keys():
        raise RuntimeError(f"adapters of version {snapshot.version} came without {sorted(missing)}")
    return tensors, broken
