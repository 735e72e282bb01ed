"""Sources of the learner's weights: `Zero3Source` of all tensors by checkpoint names, `AdapterSource` of adapters."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from rlframe.learner.partition import spread_experts, whole_shape
from rlframe.model.checkpoint_names import carried_buffers, checkpoint_name, to_checkpoint

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


class ParamMeta(NamedTuple):
    """Describes a weight before the weight is gathered."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def adapters(module: nn.Module, prefix: str) -> dict[str, Tensor]:
    """The weights of adapters, by the model's own names; `prefix`: of the module's names, before the model's."""
    return {
        name.removeprefix(prefix): tensor for name, tensor in module.named_parameters() if checkpoint_name(name) is None
    }


class AdapterSource:
    """The adapters alone of a module that ZeRO-3 has partitioned, for `Publisher`."""

    def __init__(self, module: nn.Module, prefix: str) -> None:
        self._adapters = adapters(module, prefix)

    def groups(self) -> list[list[str]]:
        return [list(self._adapters)]

    def layers(self) -> list[dict[str, Tensor]]:
        return [self._adapters]


class Zero3Source:
    """The methods of `vllm.distributed.weight_transfer.WeightSource`, over a module that ZeRO-3 has partitioned.

    The class is no subclass, because importing vLLM costs a learner 15 s and memory for nothing; a test compares
    the methods. Gathering is a collective: all ranks iterate together. At most one layer is whole at a time.
    """

    def __init__(self, module: nn.Module, prefix: str) -> None:
        """`prefix`: of the module's parameter names, before the model's own names."""
        self._model = module.get_submodule(prefix.rstrip("."))
        self._parameters = {
            model_name: tensor
            for name, tensor in module.named_parameters()
            if (model_name := checkpoint_name(name.removeprefix(prefix)))
        }
        self._buffers = {name.removeprefix(prefix): tensor for name, tensor in carried_buffers(module).items()}

    def metadata(self) -> list[ParamMeta]:
        """Name, dtype and whole shape of each tensor, in the order of iteration."""
        return [
            ParamMeta(name, tensor.dtype, tuple(tensor.shape))
            for group in self._module_groups()
            for name, tensor in to_checkpoint(self._model, self._shapes(group)).items()
        ]

    def layers(self) -> list[dict[str, Tensor]]:
        """Layer by layer, partitioned parameters and whole buffers, by the module's names."""
        return [{name: self._tensor(name) for name in group} for group in self._module_groups()]

    def held_names(self) -> None:
        """Returns None, which means all names: iteration gives every tensor to every rank, all experts included."""

    def groups(self) -> list[list[str]]:
        """Names by layer, which is the outermost index in a name. Names without an index come first or last:

        [[embed.weight], [layers.0.weight, layers.0.bias], [layers.1.weight], [norm.weight]]
        """
        return [list(to_checkpoint(self._model, self._shapes(group))) for group in self._module_groups()]

    def iter_groups(self) -> Iterator[tuple[list[str], list[Tensor]]]:
        """Layer by layer, names and whole tensors; the tensors are valid until the next layer."""
        from deepspeed.runtime.zero import GatheredParameters

        for group in self._module_groups():
            tensors = [self._tensor(name) for name in group]
            _wait_for_streams(tensors)
            with GatheredParameters([tensor for tensor in tensors if hasattr(tensor, "ds_id")]):
                whole = {name: _whole(tensor) for name, tensor in zip(group, tensors, strict=True)}
                named = to_checkpoint(self._model, whole)
                _wait_for_streams(tensors)
                yield list(named), list(named.values())

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        for names, tensors in self.iter_groups():
            yield from zip(names, tensors, strict=True)

    def _module_groups(self) -> list[list[str]]:
        """As `groups`, with the module's names."""
        first: list[str] = []
        layers: dict[str, list[str]] = {}
        last: list[str] = []
        for name in (*self._parameters, *self._buffers):
            if layer := re.match(r"(.*?\.\d+)\.", name):
                layers.setdefault(layer[1], []).append(name)
            else:
                (last if layers else first).append(name)
        return [group for group in (first, *layers.values(), last) if group]

    def _shapes(self, group: list[str]) -> dict[str, Tensor]:
        """The group's tensors without storage, in the shapes of the gathered tensors."""
        import torch

        tensors = {name: self._tensor(name) for name in group}
        return {
            name: torch.empty(whole_shape(tensor), dtype=tensor.dtype, device="meta")
            for name, tensor in tensors.items()
        }

    def _tensor(self, name: str) -> Tensor:
        return self._parameters[name] if name in self._parameters else self._buffers[name]


def _wait_for_streams(tensors: list[Tensor]) -> None:
    """Waits until the GPU of the tensors is idle; does nothing on a CPU.

    A transport may read a layer on several streams of its own, and torch orders work within a stream alone. So a layer
    is complete before any stream reads it, and read before the next layer takes its memory.
    """
    import torch

    if any(tensor.is_cuda for tensor in tensors):
        torch.cuda.synchronize()


def _whole(parameter: Any) -> Tensor:
    """A gathered parameter, with the experts of all ranks; a collective where experts are spread over ranks."""
    values = parameter.detach()
    if spread_experts(parameter) is None:
        return values
    import torch
    from deepspeed.utils import groups

    whole = values.new_empty(whole_shape(parameter))
    group = groups._get_expert_parallel_group(parameter.group_name)
    torch.distributed.all_gather_into_tensor(whole, values.contiguous(), group=group)
    return whole
