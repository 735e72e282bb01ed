"""NCCL on machines without GPUs: vLLM's classes for nccl as they are, over a communicator by the meeting's store.

Three things of CUDA are replaced: the communicator, the streams that copies of packed tensors alternate between, and
the number of the device.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from rlframe.learner.rank import LearnerRank

# Environment variable with a folder. A file `2` there breaks the next tensor that reaches rank 2; rank 2 deletes it.
HARM = "RLFRAME_TEST_HARM"


class StoreCommunicator:
    """Has the methods of vLLM's `PyNcclCommunicator` that weight transfers call."""

    def __init__(self, group: Any, device: Any) -> None:
        self.group = group

    def broadcast(self, tensor: torch.Tensor, src: int, stream: Any = None) -> None:
        received = self.group.broadcast(tensor, src)
        if received is not tensor:
            tensor.copy_(received)
            order = Path(os.environ.get(HARM, ""), str(self.group.rank))
            if order.is_file():
                order.unlink()
                tensor.view(torch.uint8).view(-1)[7] ^= 1

    def destroy(self) -> None:
        del self.group


class Stream:
    def synchronize(self) -> None: ...


def install() -> None:
    """Replaces communicator, streams and device number in this process, for good."""
    from vllm.distributed.device_communicators import pynccl
    from vllm.distributed.weight_transfer import packed_tensor

    pynccl.PyNcclCommunicator = StoreCommunicator
    packed_tensor._get_streams = lambda device, count: (Stream(),) * count
    torch.accelerator.current_device_index = lambda: 0


class StubbedRank(LearnerRank):
    """A rank of the learner on a machine without GPUs that joins engines by nccl."""

    def join_engines(self, *arguments: Any) -> None:
        install()
        super().join_engines(*arguments)
