"""`Sleeper`: moves a rank's state from its GPU to the host's memory and back, for a learner that shares GPUs by turns.

DeepSpeed's `offload_states` moves gradients and buckets. It refuses optimizers other than its own FusedAdam, and while
parameters are away it cuts the host copy in the module's order, which is wrong for several parameter groups and for
adapters. So this file moves master weights, optimizer states, parameters and the reference. On the host the
values stay readable.
"""

from __future__ import annotations

import gc
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class Sleeper:
    """The tensors of a rank that leave the device while the rank does not compute.

    Tensors that learner.offload_optimizer or offload_parameters keep in the host's memory stay there.
    """

    def __init__(
        self, engine: Any, optimizer: Any, device: torch.device, reference: Callable[[], list[Tensor]]
    ) -> None:
        """`engine`, `optimizer`: DeepSpeed's, of ZeRO stage 3. `reference`: the tensors of the reference, if any."""
        self.engine = engine
        self.optimizer = optimizer
        self.device = device
        self.reference = reference
        self._moved: list[Tensor] = []  # on the host until the rank wakes

    def leave(self, *, keep_parameters: bool) -> None:
        """Moves everything, or everything but the parameters, to the host."""
        self.engine.empty_partition_cache()  # drops gathered parameters, so that shards alone hold the values
        if not self.engine.zero_offload_param():  # DeepSpeed's method refuses engines that offload parameters
            from deepspeed.runtime.zero.offload_config import OffloadStateTypeEnum as States

            self.engine.offload_states(include=[States.lp_grads, States.contiguous_grad_buffer])
        parameters, states = self._parameters(), self._states()
        # With float32 parameters DeepSpeed takes the parameters themselves for master weights.
        kept = {_storage(tensor) for tensor in parameters} if keep_parameters else set()
        leaving = [
            tensor
            for tensor in parameters + states
            if tensor.device.type == self.device.type and _storage(tensor) not in kept
        ]
        relocate(leaving, torch.device("cpu"))
        self._moved += leaving
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def come_back(self) -> None:
        """Moves everything that left back to the device."""
        relocate(self._moved, self.device)
        self._moved = []
        if not self.engine.zero_offload_param():
            self.engine.reload_states()

    def _parameters(self) -> list[Tensor]:
        """Shards of parameters, DeepSpeed's buffer with all trained shards end to end, and views of the buffer."""
        if self.engine.zero_offload_param():
            return []
        shards = [parameter.ds_tensor for parameter in self.engine.module.parameters()]
        return [*shards, self.optimizer.lp_param_buffer, *self.optimizer.fp16_partitioned_groups_flat]

    def _states(self) -> list[Tensor]:
        values = [value for state in self.optimizer.optimizer.state.values() for value in state.values()]
        states = [value for value in values if isinstance(value, Tensor)]
        return [*self.optimizer.fp32_partitioned_groups_flat, *states, *self.reference()]


def relocate(tensors: Iterable[Tensor], target: torch.device) -> None:
    """Moves tensors to a device. Views of the same storage are moved together, and stay views of one storage.

    Views [0, 1] and [2] of a storage [0, 1, 2] on the GPU become views of one storage [0, 1, 2] on the host.
    """
    views: defaultdict[int, list[Tensor]] = defaultdict(list)
    for tensor in tensors:
        if tensor.untyped_storage().nbytes():
            views[_storage(tensor)].append(tensor)
    for storage_views in views.values():
        old = storage_views[0].untyped_storage()
        pinned = old.device.type == "cuda" and target.type == "cpu"  # copies at the link's full speed
        moved = torch.empty(old.nbytes(), dtype=torch.uint8, device=target, pin_memory=pinned)
        source: Any = torch.empty(0, dtype=torch.uint8, device=old.device)
        moved.copy_(source.set_(old))
        for view in storage_views:
            new: Any = torch.empty(0, dtype=view.dtype, device=target)
            view.data = new.set_(moved.untyped_storage(), view.storage_offset(), view.size(), view.stride())


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
