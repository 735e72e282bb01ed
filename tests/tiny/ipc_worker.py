"""vLLM's worker on a CPU with the stand-in for CUDA IPC; apart from `ipc.py`, because importing it takes seconds."""

from __future__ import annotations

from typing import Any

from vllm.v1.worker.cpu_worker import CPUWorker

from tests.tiny import ipc


class StubbedWorker(CPUWorker):
    """A worker on the GPU that the file `engine` names."""

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        ipc.install("engine")
        super().init_weight_transfer_engine(init_info)
