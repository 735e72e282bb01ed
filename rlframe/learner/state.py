"""Copies a ZeRO-3 rank's state (master weights, optimizer state, buffers) to the host's memory, and restores it.

ZeRO-3 joins a rank's shards of many parameters into one flat tensor, which the optimizer takes for a parameter. The
optimizer's tensors of the same length are cut at the same positions, so this file needs to know no optimizer.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from rlframe.learner.partition import ShardRange, shard_range
from rlframe.learner.shards import MASTER, RankState, SavedState, Shard
from rlframe.model.checkpoint_names import carried_buffers

if TYPE_CHECKING:
    from pathlib import Path


class FlatShard(NamedTuple):
    """A rank's shard of a parameter in the optimizer's flat tensor."""

    parameter: Any  # torch's, with DeepSpeed's attributes
    flat: Tensor  # float32; a parameter to the optimizer
    span: slice  # of the shard in `flat`, without padding
    range: ShardRange  # of the shard in the whole parameter
    group: dict[str, Any]  # the optimizer's settings for the parameter


def snapshot(module: nn.Module, optimizer: Any, counters: dict[str, int], *, rank: int) -> RankState:
    """Copies this rank's state into the host's memory. `optimizer` is DeepSpeed's wrapper of torch's."""
    shards = {
        name: Shard(
            shape=shard.range.shape,
            start=shard.range.start,
            tensors={
                kind: _to_host(tensor[shard.span] if tensor.ndim else tensor)
                for kind, tensor in _tensors(optimizer, shard.flat).items()
                if shard.range.end > shard.range.start or not tensor.ndim
            },
            numbers={
                key: value for key, value in _state(optimizer, shard.flat).items() if isinstance(value, int | float)
            },
        )
        for name, shard in _flat_shards(module, optimizer)
    }
    buffers = {name: _to_host(buffer) for name, buffer in carried_buffers(module).items()} if rank == 0 else {}
    return RankState(shards=shards, buffers=buffers, counters=counters)


@torch.no_grad()
def restore(module: nn.Module, optimizer: Any, folder: Path) -> dict[str, int]:
    """Copies the files' values into this rank's shards -> the counters.

    Raises ValueError where the files hold other parameters than this learner trains.
    """
    saved = SavedState(folder)
    shards = dict(_flat_shards(module, optimizer))
    _compare(saved.shapes, {name: shard.range.shape for name, shard in shards.items()}, folder)
    for name, shard in shards.items():
        state = _state(optimizer, shard.flat)
        for kind in saved.kinds(name):
            values = saved.read(name, kind, shard.range.start, shard.range.end)
            if kind == MASTER:
                shard.flat[shard.span].copy_(values)
                shard.parameter.ds_tensor.data[: len(values)].copy_(values)
            elif values.ndim == 0:
                # As torch's `load_state_dict`: a fused kernel reads the counter of steps on the device.
                on_device = shard.group.get("fused") or shard.group.get("capturable")
                state[kind] = values.to(shard.flat.device) if on_device else values
            else:
                state.setdefault(kind, torch.zeros_like(shard.flat, dtype=values.dtype, requires_grad=False))
                state[kind][shard.span].copy_(values)
        state.update(saved.numbers[name])
        if state:
            optimizer.optimizer.state[shard.flat] = state
    for name, buffer in carried_buffers(module).items():
        buffer.copy_(saved.buffers[name])
    return saved.counters


def _flat_shards(module: nn.Module, optimizer: Any) -> Iterator[tuple[str, FlatShard]]:
    """This rank's shard of every trained parameter, by the parameter's name."""
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        subgroup, offset, _ = optimizer.grad_position[optimizer.get_param_id(parameter)]
        in_parameter = shard_range(parameter)
        span = slice(offset, offset + in_parameter.end - in_parameter.start)
        group = optimizer.optimizer.param_groups[optimizer.sub_group_to_group_id[subgroup]]
        yield name, FlatShard(parameter, optimizer.fp32_partitioned_groups_flat[subgroup], span, in_parameter, group)


def _state(optimizer: Any, flat: Tensor) -> dict[str, Any]:
    """The state of torch's optimizer for `flat`; empty before the first step."""
    return optimizer.optimizer.state.get(flat, {})


def _tensors(optimizer: Any, flat: Tensor) -> dict[str, Tensor]:
    moments = {key: value for key, value in _state(optimizer, flat).items() if isinstance(value, Tensor)}
    return {MASTER: flat.detach(), **moments}


def _to_host(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True).contiguous()


def _compare(saved: dict[str, tuple[int, ...]], trained: dict[str, tuple[int, ...]], folder: Path) -> None:
    if saved != trained:
        odd = sorted(name for name in saved.keys() | trained.keys() if saved.get(name) != trained.get(name))
        raise ValueError(
            f"{folder} is of another learner: {odd[0]} has there the shape {saved.get(odd[0])}, here "
            f"{trained.get(odd[0])} ({len(odd)} parameters differ); resume with that run's model and learner.lora, and "
            "with learner.expert_parallel null or not as it was there"
        )
