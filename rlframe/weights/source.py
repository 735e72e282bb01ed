"""The learner's weights as vLLM's trainers want them: whole tensors, layer by layer, under checkpoint names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from rlframe.learner.lora import checkpoint_name

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


class ParamMeta(NamedTuple):
    """What a weight is before it is gathered."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]


class Zero3Source:
    """A `vllm.distributed.weight_transfer.WeightSource` over a module whose parameters ZeRO-3 has partitioned.

    It has that class's methods without being its subclass, because importing vLLM costs a learner 15 s and
    its memory for nothing; a test holds the two together. Gathering is a collective: all ranks iterate
    together. At most one layer is whole at a time.
    """

    def __init__(self, module: nn.Module, prefix: str) -> None:
        """`prefix` is what the module's parameter names carry before their checkpoint names."""
        self._parameters = {
            known: tensor
            for name, tensor in module.named_parameters()
            if (known := checkpoint_name(name.removeprefix(prefix)))
        }
        self._buffers = {
            name.removeprefix(prefix): tensor
            for name, tensor in module.named_buffers()
            if name.removeprefix(prefix) in _persistent(module, prefix)
        }

    def metadata(self) -> list[ParamMeta]:
        """Name, dtype and full shape of everything that iteration yields, in its order."""
        return [
            ParamMeta(name, tensor.dtype, tuple(getattr(tensor, "ds_shape", tensor.shape)))
            for group in self.groups()
            for name, tensor in ((name, self._tensor(name)) for name in group)
        ]

    def held_names(self) -> None:
        """Every rank holds a part of every parameter."""

    def groups(self) -> list[list[str]]:
        """Names by layer, keyed by their outermost index; what has none before the layers, then after them."""
        before: list[str] = []
        layers: dict[str, list[str]] = {}
        after: list[str] = []
        for name in (*self._parameters, *self._buffers):
            if layer := re.match(r"(.*?\.\d+)\.", name):
                layers.setdefault(layer[1], []).append(name)
            else:
                (after if layers else before).append(name)
        return [group for group in (before, *layers.values(), after) if group]

    def iter_groups(self) -> Iterator[tuple[list[str], list[Tensor]]]:
        """One layer's names and whole tensors at a time; they are only valid until the next."""
        from deepspeed.runtime.zero import GatheredParameters

        for group in self.groups():
            tensors = [self._tensor(name) for name in group]
            with GatheredParameters([tensor for tensor in tensors if hasattr(tensor, "ds_id")]):
                yield group, [tensor.detach() for tensor in tensors]

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        for names, tensors in self.iter_groups():
            yield from zip(names, tensors, strict=True)

    def _tensor(self, name: str) -> Tensor:
        return self._parameters[name] if name in self._parameters else self._buffers[name]


def _persistent(module: nn.Module, prefix: str) -> set[str]:
    """Names of the buffers that checkpoints carry (a router's selection bias, not rotary tables)."""
    return {
        f"{path}.{name}".removeprefix(prefix)
        for path, child in module.named_modules()
        for name in child._buffers
        if name not in child._non_persistent_buffers_set
    }
