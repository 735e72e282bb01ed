"""vLLM's worker on a CPU with the stand-in for NCCL; apart from `nccl.py`, because importing it takes seconds."""

from __future__ import annotations

from typing import Any

from vllm.v1.worker.cpu_worker import CPUWorker

from tests.tiny import nccl


class StubbedWorker(CPUWorker):
    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        nccl.install()
        super().init_weight_transfer_engine(init_info)
