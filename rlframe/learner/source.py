"""The learner's weights as vLLM's trainers want them: whole tensors, layer by layer, under checkpoint names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from rlframe.learner.partition import spread_experts, whole_shape
from rlframe.model.checkpoint_names import carried_buffers, checkpoint_name, to_checkpoint

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
        """`prefix` is what the module's parameter names carry before their model's own."""
        self._model = module.get_submodule(prefix.rstrip("."))
        self._parameters = {
            known: tensor
            for name, tensor in module.named_parameters()
            if (known := checkpoint_name(name.removeprefix(prefix)))
        }
        self._buffers = {name.removeprefix(prefix): tensor for name, tensor in carried_buffers(module).items()}

    def metadata(self) -> list[ParamMeta]:
        """Name, dtype and full shape of everything that iteration yields, in its order."""
        return [
            ParamMeta(name, tensor.dtype, tuple(tensor.shape))
            for group in self._module_groups()
            for name, tensor in to_checkpoint(self._model, self._shapes(group)).items()
        ]

    def layers(self) -> list[dict[str, Tensor]]:
        """Layer by layer, parameters as ZeRO-3 holds them and whole buffers, under the module's names for them."""
        return [{name: self._tensor(name) for name in group} for group in self._module_groups()]

    def held_names(self) -> None:
        """None, for all: a rank that iterates gets every tensor whole, also experts that others hold."""

    def groups(self) -> list[list[str]]:
        """Names by layer, keyed by their outermost index; what has none before the layers, then after them."""
        return [list(to_checkpoint(self._model, self._shapes(group))) for group in self._module_groups()]

    def iter_groups(self) -> Iterator[tuple[list[str], list[Tensor]]]:
        """One layer's names and whole tensors at a time; they are only valid until the next."""
        from deepspeed.runtime.zero import GatheredParameters

        for group in self._module_groups():
            tensors = [self._tensor(name) for name in group]
            with GatheredParameters([tensor for tensor in tensors if hasattr(tensor, "ds_id")]):
                whole = {name: _whole(tensor) for name, tensor in zip(group, tensors, strict=True)}
                named = to_checkpoint(self._model, whole)
                yield list(named), list(named.values())

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        for names, tensors in self.iter_groups():
            yield from zip(names, tensors, strict=True)

    def _module_groups(self) -> list[list[str]]:
        """As `groups`, under the names that the module has for them."""
        before: list[str] = []
        layers: dict[str, list[str]] = {}
        after: list[str] = []
        for name in (*self._parameters, *self._buffers):
            if layer := re.match(r"(.*?\.\d+)\.", name):
                layers.setdefault(layer[1], []).append(name)
            else:
                (after if layers else before).append(name)
        return [group for group in (before, *layers.values(), after) if group]

    def _shapes(self, group: list[str]) -> dict[str, Tensor]:
        """Tensors without data, of the full shape that the group's have once they are gathered."""
        import torch

        tensors = {name: self._tensor(name) for name in group}
        return {
            name: torch.empty(whole_shape(tensor), dtype=tensor.dtype, device="meta")
            for name, tensor in tensors.items()
        }

    def _tensor(self, name: str) -> Tensor:
        return self._parameters[name] if name in self._parameters else self._buffers[name]


def _whole(parameter: Tensor) -> Tensor:
    """What ZeRO-3 has gathered, with the experts of all ranks; a collective where those are spread over ranks."""
    values = parameter.detach()
    if spread_experts(parameter) is None:
        return values
    import torch
    from deepspeed.utils import groups

    every = values.new_empty(whole_shape(parameter))
    group = groups._get_expert_parallel_group(parameter.group_name)
    torch.distributed.all_gather_into_tensor(every, values.contiguous(), group=group)
    return every
