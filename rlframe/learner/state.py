"""A ZeRO-3 rank's state <-> slices in the host's memory: master weights, the optimizer's state, buffers.

ZeRO-3 keeps a rank's slices of many parameters end to end in one flat tensor, which is what the optimizer sees.
Whatever the optimizer keeps for it, of the same length, is cut up likewise, so no optimizer needs to be known here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from rlframe.learner.partition import Place, place
from rlframe.learner.shards import MASTER, Saved, Shard, Slice
from rlframe.model.checkpoint_names import carried_buffers

if TYPE_CHECKING:
    from pathlib import Path


class Held(NamedTuple):
    """Where a rank holds its slice of a parameter."""

    parameter: nn.Parameter
    flat: Tensor  # float32; the optimizer's parameter
    there: slice  # in `flat`, without padding
    whole: Place  # in the parameter


def snapshot(module: nn.Module, optimizer: Any, counters: dict[str, int], *, rank: int) -> Shard:
    """Copies what this rank holds into the host's memory. `optimizer` is DeepSpeed's around torch's."""
    slices = {
        name: Slice(
            shape=held.whole.shape,
            start=held.whole.start,
            tensors={
                kind: _to_host(tensor[held.there] if tensor.ndim else tensor)
                for kind, tensor in _tensors(optimizer, held.flat).items()
                if held.whole.end > held.whole.start or not tensor.ndim
            },
            numbers={
                key: value for key, value in _state(optimizer, held.flat).items() if isinstance(value, int | float)
            },
        )
        for name, held in _holdings(module, optimizer)
    }
    buffers = {name: _to_host(buffer) for name, buffer in carried_buffers(module).items()} if rank == 0 else {}
    return Shard(slices=slices, buffers=buffers, counters=counters)


@torch.no_grad()
def restore(module: nn.Module, optimizer: Any, folder: Path) -> dict[str, int]:
    """Puts what the files in `folder` hold into this rank's slices -> the counters.

    Raises ValueError where the files are of other parameters than this learner trains.
    """
    saved = Saved(folder)
    holdings = dict(_holdings(module, optimizer))
    _compare(saved.shapes, {name: held.whole.shape for name, held in holdings.items()}, folder)
    for name, held in holdings.items():
        state = _state(optimizer, held.flat)
        for kind in saved.kinds(name):
            values = saved.read(name, kind, held.whole.start, held.whole.end)
            if kind == MASTER:
                held.flat[held.there].copy_(values)
                held.parameter.ds_tensor.data[: len(values)].copy_(values)
            elif values.ndim == 0:
                state[kind] = values
            else:
                state.setdefault(kind, torch.zeros_like(held.flat, dtype=values.dtype, requires_grad=False))
                state[kind][held.there].copy_(values)
        state.update(saved.numbers[name])
        if state:
            optimizer.optimizer.state[held.flat] = state
    for name, buffer in carried_buffers(module).items():
        buffer.copy_(saved.buffers[name])
    return saved.counters


def _holdings(module: nn.Module, optimizer: Any) -> Iterator[tuple[str, Held]]:
    """This rank's part of every parameter that is trained, by name."""
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        subgroup, offset, _ = optimizer.grad_position[optimizer.get_param_id(parameter)]
        whole = place(parameter)
        flat = optimizer.fp32_partitioned_groups_flat[subgroup]
        yield name, Held(parameter, flat, slice(offset, offset + whole.end - whole.start), whole)


def _state(optimizer: Any, flat: Tensor) -> dict[str, Any]:
    """What torch's optimizer keeps for `flat`; nothing before its first step."""
    return optimizer.optimizer.state.get(flat, {})


def _tensors(optimizer: Any, flat: Tensor) -> dict[str, Tensor]:
    kept = {key: value for key, value in _state(optimizer, flat).items() if isinstance(value, Tensor)}
    return {MASTER: flat.detach(), **kept}


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
