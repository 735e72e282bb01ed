"""A frozen policy beside the one that learns, on the same ranks: their slices of its parameters, and nothing else.

ZeRO-3 keeps a flat slice of each parameter on each rank and gathers the whole where a module computes with it. So a
second policy takes no second model: its slices are put in place of the first's while it is asked. It costs a rank the
learner's dtype times its share of the parameters, in the device's memory or the host's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rlframe.learner.partition import place
from rlframe.learner.shards import Saved, Shard, Slice
from rlframe.model.checkpoint_names import carried_buffers

KIND = "weights"  # what a shard calls a slice of the reference


class Reference:
    """The policy as it was when this was made, last refreshed or restored. Every method is a collective."""

    def __init__(self, engine: Any, *, rank: int, offload: bool) -> None:
        """`engine`: DeepSpeed's, of ZeRO stage 3; `offload`: keep the slices in the host's memory."""
        self.engine = engine
        self.rank = rank
        self.tensors = {
            name: torch.empty_like(live, device="cpu" if offload else live.device)
            for name, live in self._live().items()
        }
        self.refresh()

    def refresh(self) -> None:
        """The policy of now becomes the reference."""
        self.engine.empty_partition_cache()  # what is gathered is let go, so that slices are all there is
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

    def snapshot(self) -> Shard:
        """Copies this rank's slices into the host's memory."""
        slices = {}
        for name, parameter in self._trained().items():
            shape, start, end = place(parameter)
            kept = self.tensors[name][: end - start].to("cpu", copy=True)
            slices[name] = Slice(shape=shape, start=start, tensors={KIND: kept} if len(kept) else {}, numbers={})
        buffers = (
            {name: self.tensors[name].to("cpu", copy=True) for name in carried_buffers(self.engine.module)}
            if self.rank == 0
            else {}
        )
        return Shard(slices=slices, buffers=buffers, counters={})

    def restore(self, folder: Path) -> None:
        """Puts what the files in `folder` hold, of any number of ranks, into this rank's slices."""
        saved = Saved(folder)
        for name, parameter in self._trained().items():
            _, start, end = place(parameter)
            self.tensors[name][: end - start].copy_(saved.read(name, KIND, start, end))
        for name in carried_buffers(self.engine.module):
            self.tensors[name].copy_(saved.buffers[name])

    def _live(self) -> dict[str, Tensor]:
        """What differs between two policies, as it is in use now."""
        return {name: parameter.ds_tensor for name, parameter in self._trained().items()} | carried_buffers(
            self.engine.module
        )

    def _trained(self) -> dict[str, nn.Parameter]:
        named = self.engine.module.named_parameters()
        return {name: parameter for name, parameter in named if parameter.requires_grad}
