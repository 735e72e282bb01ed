"""Loads a model under ZeRO-3: every rank reads its own shards from the files, and no rank ever has the whole model.

A parameter on `meta` becomes a partitioned parameter with memory for this rank's shard, which is then read from the
files. The experts of a layer are one parameter and many tensors in the files: a rank reads the tensors that its shard
needs.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rlframe.learner.partition import shard_range
from rlframe.model.checkpoint_files import CheckpointFiles, TensorRange
from rlframe.model.conversion import conversions


@torch.no_grad()
def load_shards(model: Any, folder: Path, settings: dict[str, Any]) -> None:
    """Fills `model` of transformers, whose parameters are on `meta`, from a Hugging Face folder.

    `settings`: DeepSpeed's configuration. Afterwards buffers are on the device and parameters are partitioned, so
    `deepspeed.initialize` neither moves nor copies the module. Raises RunFailed naming tensors that do not fit.
    """
    import deepspeed

    files = CheckpointFiles(folder)
    # `Init` also replaces torch's linear function, so that autograd keeps no gathered weights; hence the empty module.
    partitioner = deepspeed.zero.Init(module=nn.Module(), config_dict_or_path=settings)
    tensors = model.state_dict(keep_vars=True)
    owners = _owners(model)
    for conversion in conversions(model, files):
        partitioned = {
            name: _partitioned(tensors[name], partitioner)
            for name in conversion.targets
            if isinstance(tensors[name], nn.Parameter)
        }
        parts = {
            name: _shard(partitioned[name]) if name in partitioned else TensorRange(0, tensors[name].view(-1))
            for name in conversion.targets
        }
        conversion.fill(model, files, parts)
        for name, parameter in partitioned.items():
            for module, attribute in owners[id(tensors[name])]:
                setattr(module, attribute, parameter)
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.to(partitioner.local_device))


def _owners(model: nn.Module) -> dict[int, list[tuple[nn.Module, str]]]:
    """Parameter id -> (module, attribute) of each module that has the parameter: several for a tied parameter."""
    owners: dict[int, list[tuple[nn.Module, str]]] = defaultdict(list)
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            owners[id(parameter)].append((module, name))
    return owners


def _partitioned(parameter: nn.Parameter, partitioner: Any) -> Any:
    """A partitioned parameter without values, in the learner's dtype, with the shape of `parameter` on `meta`."""
    dtype = partitioner.dtype if parameter.is_floating_point() else parameter.dtype
    whole = torch.empty(parameter.shape, dtype=dtype, device=partitioner.local_device)  # never written
    partitioned: Any = nn.Parameter(whole, requires_grad=parameter.requires_grad)
    # `Init`'s own method would also broadcast every parameter from rank 0.
    partitioner._convert_to_deepspeed_param(partitioned)
    partitioned.partition()
    return partitioned


def _shard(parameter: Any) -> TensorRange:
    _, start, end = shard_range(parameter)
    values = parameter.ds_tensor.data
    values[end - start :].zero_()  # padding
    return TensorRange(start, values[: end - start])
