"""`Reference`: a frozen policy on the same ranks as the trained one, which holds nothing but shards.

ZeRO-3 keeps a flat shard of each parameter on each rank and gathers whole parameters where a module computes with
them. So a second policy needs no second model: its shards replace the policy's during its forward passes. A rank's
cost is its share of the parameters in the learner's dtype, in the device's memory or the host's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlframe.learner.partition import shard_range
from rlframe.learner.shards import RankState, SavedState, Shard
from rlframe.model.checkpoint_names import carried_buffers

KIND = "weights"  # the reference's tensors in a checkpoint


class Reference:
    """The policy at the time of construction, of the last `refresh` or `restore`. Every method is a collective."""

    def __init__(self, engine: Any, *, rank: int, offload: bool) -> None:
        """`engine`: DeepSpeed's, of ZeRO stage 3; `offload`: keep the shards in the host's memory."""
        self.engine = engine
        self.rank = rank
        self.tensors = {
            name: torch.empty_like(live, device="cpu" if offload else live.device)
            for name, live in self._live().items()
        }
        self.refresh()

    def refresh(self) -> None:
        """Copies the current policy into the reference."""
        self.engine.empty_partition_cache()  # drops gathered parameters, so that shards alone hold the values
        for name, live in self._live().items():
            self.tensors[name].copy_(live.detach())

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the engine's forward pass computes with the reference; no backward pass, no optimizer step."""
        self.engine.empty_partition_cache()
        live = self._live()
        policy = {name: tensor.data for name, tensor in live.items()}
        for name, tensor in live.items():
            tensor.data = self.tensors[name].to(tensor.device)
        try:
            yield
        finally:
            self.engine.empty_partition_cache()
            for name, tensor in live.items():
                tensor.data = policy[name]

    def snapshot(self) -> RankState:
        """Copies this rank's shards into the host's memory."""
        shards = {}
        for name, parameter in self._trained().items():
            shape, start, end = shard_range(parameter)
            values = self.tensors[name][: end - start].to("cpu", copy=True)
            shards[name] = Shard(shape=shape, start=start, tensors={KIND: values} if len(values) else {}, numbers={})
        buffers = (
            {name: self.tensors[name].to("cpu", copy=True) for name in carried_buffers(self.engine.module)}
            if self.rank == 0
            else {}
        )
        return RankState(shards=shards, buffers=buffers, counters={})

    def restore(self, folder: Path) -> None:
        """Copies the values of the files in `folder`, of any number of ranks, into this rank's shards."""
        saved = SavedState(folder)
        for name, parameter in self._trained().items():
            _, start, end = shard_range(parameter)
            self.tensors[name][: end - start].copy_(saved.read(name, KIND, start, end))
        for name in carried_buffers(self.engine.module):
            self.tensors[name].copy_(saved.buffers[name])

    def _live(self) -> dict[str, Tensor]:
        """The policy's tensors in use that the reference has copies of: trained shards and carried buffers."""
        return {name: parameter.ds_tensor for name, parameter in self._trained().items()} | carried_buffers(
            self.engine.module
        )

    def _trained(self) -> dict[str, Any]:
        named = self.engine.module.named_parameters()
        return {name: parameter for name, parameter in named if parameter.requires_grad}
