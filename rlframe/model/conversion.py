"""Conversions of a checkpoint's tensors into a model's, as transformers does them while it loads.

Most tensors only change their names. Some are fused from many: Qwen3-MoE's files have three matrices an expert, and the
model has `experts.gate_up_proj` [E, 2 I, H] and `experts.down_proj` [E, H, I] for all experts of a layer.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rlframe.errors import RunFailed
from rlframe.model.checkpoint_files import TensorRange
from rlframe.model.checkpoint_names import is_classifier

if TYPE_CHECKING:
    from rlframe.model.checkpoint_files import CheckpointFiles


SCORE = "score.weight"  # the head of a sequence classifier, which a language model's files lack


@dataclass(slots=True)
class Conversion:
    """Makes one or more of the model's tensors from tensors of the files; without a source, a tensor of zeros."""

    target: str  # name of the first of the model's tensors, by which transformers calls the conversion
    converter: Any | None  # transformers' WeightConverter; None: the tensor only changes its name
    sources: dict[str, list[str]] = field(default_factory=dict)  # the converter's pattern -> names in the files
    targets: list[str] = field(default_factory=list)  # names of all resulting tensors of the model

    @property
    def source(self) -> str | None:
        """The tensor in the files that only changes its name; None for a conversion that computes."""
        if self.converter is not None or not self.sources:
            return None
        [[source]] = self.sources.values()
        return source

    def shapes(self, model: Any, files: CheckpointFiles) -> dict[str, tuple[int, ...]]:
        """The model's tensors that this conversion makes -> their shapes. Reads nothing."""
        if not self.sources:
            return {self.target: tuple(model.get_parameter(self.target).shape)}
        if self.source:
            return {self.target: files.shape(self.source)}
        sources = {
            pattern: [torch.empty(files.shape(name), device="meta") for name in names]
            for pattern, names in self.sources.items()
        }
        return {name: tuple(tensor.shape) for name, tensor in self._convert(model, sources).items()}

    def fill(self, model: Any, files: CheckpointFiles, parts: Mapping[str, TensorRange]) -> None:
        """Reads parts of the tensors that this conversion makes.

        `model`: of transformers, not partitioned: its tensors have whole shapes.
        """
        if self.source:
            files.fill(self.source, parts[self.target])
            return
        if not self.sources:
            parts[self.target].values.zero_()
            return
        if not any(len(part.values) for part in parts.values()):
            return
        dtype = next(iter(parts.values())).values.dtype
        first, last = self._experts(model, parts)
        sources = {
            pattern: [files.read(name, dtype) for name in names[first:last]] for pattern, names in self.sources.items()
        }
        for name, tensor in self._convert(model, sources).items():
            parts[name].cut(tensor, first or 0)

    def _experts(self, model: Any, parts: Mapping[str, TensorRange]) -> tuple[int | None, int | None]:
        """The experts [first, last) that hold the part of a tensor [E, ...]; (None, None): all sources are needed."""
        from transformers.core_model_loading import Concatenate, MergeModulelist, Transpose

        first, *others = self.converter.operations  # pyright: ignore[reportOptionalMemberAccess]
        keeps_experts = all(
            (isinstance(operation, Concatenate) and operation.dim > 0)
            or (isinstance(operation, Transpose) and min(operation.dim0, operation.dim1) > 0)
            for operation in others
        )
        if not isinstance(first, MergeModulelist) or first.dim != 0 or not keeps_experts:
            return None, None
        [(name, part)] = parts.items()
        return part.rows(tuple(model.get_parameter(name).shape))

    def _convert(self, model: Any, sources: dict[str, list[Tensor]]) -> dict[str, Tensor]:
        converter = copy.deepcopy(self.converter)
        for pattern, tensors in sources.items():
            for tensor in tensors:
                converter.add_tensor(self.target, pattern, pattern, tensor)  # pyright: ignore
        converted = converter.convert(self.target, model=model, config=model.config)  # pyright: ignore
        return {name: value[0] if isinstance(value, list) else value for name, value in converted.items()}


def conversions(model: Any, files: CheckpointFiles) -> list[Conversion]:
    """The conversions that fill `model` of transformers, whose tensors may be on `meta`, in the order of layers.

    Raises RunFailed naming a tensor that the files lack, that the model lacks, or whose shapes differ.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, dot_natural_key, rename_source_key

    transforms = get_model_conversion_mapping(model)
    renamings = [transform for transform in transforms if isinstance(transform, WeightRenaming)]
    converters = [transform for transform in transforms if isinstance(transform, WeightConverter)]
    by_pattern = {pattern: converter for converter in converters for pattern in converter.source_patterns}
    tensors = model.state_dict(keep_vars=True)
    found: dict[str, Conversion] = {}
    unexpected = set()
    for source in sorted(files.names(), key=dot_natural_key):
        target, pattern = rename_source_key(source, renamings, converters, model.base_model_prefix, tensors)
        if target not in tensors and source in tensors:
            target, pattern = rename_source_key(source, [], [], model.base_model_prefix, tensors)
        if target not in tensors or (pattern is None and target in found):
            unexpected.add(source if target in tensors else target)
            continue
        converter = by_pattern[pattern] if pattern else None
        found.setdefault(target, Conversion(target, converter)).sources.setdefault(pattern or source, []).append(source)
    if SCORE in tensors and SCORE not in found and not is_classifier(model.config.architectures):
        found[SCORE] = Conversion(SCORE, None)  # a reward model begins with equal scores, on any number of ranks
    shapes: dict[str, tuple[int, ...]] = {}
    for conversion in found.values():
        made = conversion.shapes(model, files)
        conversion.targets = list(made)
        shapes |= made
    _check(model, tensors, files, shapes, unexpected)
    # transformers' `save_pretrained` undoes the transforms in this list only.
    model._weight_conversions = [transform for transform in transforms if transform.was_used()]
    return _without_ties(tensors, files, list(found.values()))


def _check(
    model: Any,
    tensors: dict[str, Tensor],
    files: CheckpointFiles,
    shapes: dict[str, tuple[int, ...]],
    unexpected: set[str],
) -> None:
    """Raises RunFailed as `conversions` does. `tensors`: the model's, by name."""
    from transformers.utils.loading_report import LoadStateDictInfo

    filled = {id(tensors[name]) for name in shapes if name in tensors}  # tied tensors have several names
    missing = {name for name, tensor in tensors.items() if id(tensor) not in filled}
    report = LoadStateDictInfo(
        missing_keys=missing,
        unexpected_keys=unexpected | (shapes.keys() - tensors.keys()),
        mismatched_keys=set(),
        conversion_errors={},
        error_msgs=[],
        skipped_pp_keys=set(),
    )
    model._adjust_missing_and_unexpected_keys(report)  # tensors that this architecture can do without
    # Without a value a parameter would train from nothing.
    missing = report.missing_keys | {name for name in missing if isinstance(tensors[name], torch.nn.Parameter)}
    problems = [f"lack {name}" for name in sorted(missing)]
    problems += [f"have {name}, which the model lacks" for name in sorted(report.unexpected_keys)]
    problems += [
        f"have {name} in the shape {shape}, the model in {tuple(tensors[name].shape)}"
        for name, shape in shapes.items()
        if name in tensors and tuple(tensors[name].shape) != shape
    ]
    if problems:
        raise RunFailed(
            f"model.path: the files in {files.folder} {problems[0]} ({len(problems)} tensors differ from the model of "
            f"its config.json, {type(model).__name__}); give the folder of a causal language model, saved "
            "by transformers"
        )


def _without_ties(tensors: dict[str, Tensor], files: CheckpointFiles, found: list[Conversion]) -> list[Conversion]:
    """One conversion for each tensor. Raises RunFailed where the files have two values for tied tensors."""
    first: dict[int, Conversion] = {}
    kept = []
    for conversion in found:
        earlier = first.setdefault(id(tensors[conversion.target]), conversion)
        if earlier is conversion:
            kept.append(conversion)
        elif not (earlier.source and conversion.source and _same(files, earlier.source, conversion.source)):
            raise RunFailed(
                f"model.path: config.json in {files.folder} ties {conversion.target} to {earlier.target}, and the "
                "files have different values for them; set tie_word_embeddings to false there"
            )
    return kept


def _same(files: CheckpointFiles, one: str, other: str) -> bool:
    return torch.equal(files.read(one, torch.float32), files.read(other, torch.float32))
