"""CUDA IPC on machines without GPUs: vLLM's classes for ipc as they are, over memory in files that processes share.

Replaced are the memory on the device, its handles, and the identity of the device: a process is on the GPU whose name
stands in a file.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from rlframe.learner.rank import LearnerRank

FOLDER = "RLFRAME_TEST_GPUS"  # variable of a folder: files with the names of GPUs, and the GPUs' memory


def put_on(process: str, gpu: str, folder: Path | None = None) -> None:
    """Says on which GPU a process is from now on."""
    ((folder or Path(os.environ[FOLDER])) / process).write_text(gpu)


def install(process: str) -> None:
    """Replaces CUDA's part in this process, for good."""
    from torch.multiprocessing import reductions
    from vllm.distributed.weight_transfer import packed_tensor

    folder = Path(os.environ[FOLDER])
    files: dict[int, str] = {}  # address -> file with the memory
    empty = torch.empty

    def allocate(size: Any, *arguments: Any, device: Any = None, **named: Any) -> torch.Tensor:
        if device != "cuda":
            return empty(size, *arguments, device=device, **named)
        descriptor, file = tempfile.mkstemp(dir=folder)
        os.close(descriptor)
        memory = _map(file, size)
        files[memory.data_ptr()] = file
        return memory

    def share(tensor: torch.Tensor) -> tuple[None, tuple[Any, ...]]:
        """The arguments of `open_shared`, with the device's number in the place where CUDA's have theirs."""
        return None, (files[tensor.data_ptr()], len(tensor), None, None, None, None, 0)

    def open_shared(file: str, size: int, *_: Any) -> torch.Tensor:
        return _map(file, size)

    replaced: list[tuple[Any, str, Any]] = [
        (torch, "empty", allocate),
        (packed_tensor, "reduce_tensor", share),
        (reductions, "rebuild_cuda_tensor", open_shared),
        (torch.cuda, "get_device_properties", lambda _: SimpleNamespace(uuid=(folder / process).read_text())),
        (torch.cuda, "current_stream", lambda: SimpleNamespace(synchronize=lambda: None)),
        (torch.cuda, "synchronize", lambda: None),
        (torch.cuda, "ipc_collect", lambda: None),
        (torch.accelerator, "current_device_index", lambda: 0),
    ]
    for module, name, function in replaced:
        setattr(module, name, function)


def _map(file: str, size: int) -> torch.Tensor:
    return torch.from_file(file, shared=True, size=size, dtype=torch.uint8)


class StubbedRank(LearnerRank):
    """A rank on a machine without GPUs that joins engines by ipc, on the GPU `gpu-RANK`."""

    def join_engines(self, *arguments: Any) -> None:
        put_on(self.name, f"gpu-{self.rank}")
        install(self.name)
        super().join_engines(*arguments)
