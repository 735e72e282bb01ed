"""`merge`: the weighted average of models, tensor by tensor, as a Hugging Face folder.

Anything beyond an average (SLERP, TIES, DARE) is mergekit's work, which writes folders that rlframe reads.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlframe.errors import ConfigError
from rlframe.model import quantisation
from rlframe.model.base_model import make_folder
from rlframe.model.checkpoint_files import CHUNK, CheckpointFiles, TensorRange
from rlframe.model.checkpoint_names import model_on_meta
from rlframe.model.tensor_files import TYPES, NewTensor, copy_settings, write_tensors

# Settings that may differ: none of them changes what a layer computes.
FREE_SETTINGS = {"_name_or_path", "architectures", "dtype", "torch_dtype", "max_position_embeddings"}
FREE_SETTINGS |= {"tokenizer_class", "transformers_version", "use_cache"}


def merge(models: dict[str, Path], weights: list[float], out: Path) -> int:
    """Writes the average of models, by the names that errors use -> the number of tensors.

    Settings, tokenizer, types and division into files are those of the first model. Sums are in float32. Memory holds
    pieces of a tensor only. Raises ConfigError that names the first difference, or the first tensor with a value that
    is no number; then nothing is left on disk.
    """
    if len(models) < 2:
        raise ConfigError("an average needs two models or more: name=folder name=folder")
    if len(weights) != len(models) or not math.isclose(sum(weights), 1.0, abs_tol=1e-6):
        raise ConfigError(f"weights: {weights} must be a number for each of {', '.join(models)}, of sum 1")
    first, *others = models
    for other in others:
        check_settings(models, first, other)
        check_tokenizers(models, first, other)
    files = {name: CheckpointFiles(folder) for name, folder in models.items()}
    ties = tied_names(models[first])
    for other in others:
        check_tensors(files, first, other, ties)
    tensors = [new_tensor(files[first], name, name) for name in files[first].names()]

    def fill(folder: Path) -> None:
        copy_settings(models[first], folder)
        write_tensors(folder, tensors, lambda tensor: _average(tensor, files, weights, ties))

    make_folder(out, fill)
    return len(tensors)


def check_settings(models: dict[str, Path], first: str, other: str) -> None:
    """Raises ConfigError for quantised weights, and for settings that change what a layer computes."""
    for name in (first, other):
        if method := quantisation.method(models[name]):
            raise ConfigError(f"{name}: its weights are quantised ({method}); save them dequantised, then merge")
    ours, theirs = (_settings(models[name]) for name in (first, other))
    if different := [key for key in sorted(ours | theirs) if ours.get(key) != theirs.get(key)]:
        values = f"{ours.get(different[0])!r} and {theirs.get(different[0])!r}"
        raise ConfigError(
            f"{first} and {other} differ in their config.json: {different[0]} is {values}; only models of the same "
            "shape and settings have an average"
        )


def check_tokenizers(models: dict[str, Path], first: str, other: str) -> None:
    """Raises ConfigError naming the first token id that means two texts. Folders without one are not compared."""
    from transformers import AutoTokenizer

    if not all(any(models[name].glob("tokenizer*")) for name in (first, other)):
        return
    tokenizers = (AutoTokenizer.from_pretrained(models[name], trust_remote_code=False) for name in (first, other))
    ours, theirs = ({token_id: token for token, token_id in t.get_vocab().items()} for t in tokenizers)
    if different := sorted(token_id for token_id in ours | theirs if ours.get(token_id) != theirs.get(token_id)):
        tokens = f"{ours.get(different[0])!r} and {theirs.get(different[0])!r}"
        raise ConfigError(
            f"{first} and {other} have different tokenizers: token {different[0]} is {tokens}; let one model draw "
            "rows, and tune the other on them"
        )


def check_tensors(files: dict[str, CheckpointFiles], first: str, other: str, ties: dict[str, set[str]]) -> None:
    """Raises ConfigError naming the first tensor that one of two models lacks, or whose shapes differ."""
    for has, lacks in ((first, other), (other, first)):
        for name in files[has].names():
            if (same := stored(files[lacks], name, ties)) is None:
                raise ConfigError(f"{lacks} has no tensor {name}, which {has} has; models of one architecture merge")
            if files[has].shape(name) != files[lacks].shape(same):
                raise ConfigError(
                    f"{name} is {list(files[has].shape(name))} in {has} and {list(files[lacks].shape(same))} in "
                    f"{lacks}; only tensors of equal shapes have an average"
                )


def tied_names(folder: Path) -> dict[str, set[str]]:
    """Name -> all names of the same tensor, for tied tensors: the head under that of the embeddings."""
    names: dict[int, set[str]] = {}
    for name, tensor in model_on_meta(folder).state_dict(keep_vars=True).items():
        names.setdefault(id(tensor), set()).add(name)
    return {name: group for group in names.values() if len(group) > 1 for name in group}


def stored(files: CheckpointFiles, name: str, ties: dict[str, set[str]]) -> str | None:
    """The name under which files have a tensor; a tied one may be there under its other name only."""
    known = files.file_of.keys()
    return name if name in known else next(iter(sorted(ties.get(name, set()) & known)), None)


def new_tensor(files: CheckpointFiles, source: str, name: str) -> NewTensor:
    """The tensor `source` of some files under a new name. Raises ConfigError for a type that is not written."""
    if files.type(source) not in TYPES:
        raise ConfigError(f"{source} in {files.folder} is in {files.type(source)}; only {', '.join(TYPES)} are written")
    return NewTensor(name, files.file_of[source], files.type(source), files.shape(source))


def pieces(files: CheckpointFiles, name: str, dtype: torch.dtype) -> Iterator[Tensor]:
    """The entries of a tensor in order, CHUNK at a time."""
    total = math.prod(files.shape(name))
    for start in range(0, total, CHUNK):
        values = torch.empty(min(CHUNK, total - start), dtype=dtype)
        files.fill(name, TensorRange(start, values))
        yield values


def _average(
    tensor: NewTensor, files: dict[str, CheckpointFiles], weights: list[float], ties: dict[str, set[str]]
) -> Iterator[Tensor]:
    dtype = TYPES[tensor.type]
    summed = torch.float64 if dtype == torch.float64 else torch.float32
    readers = [
        pieces(
            models_files,
            stored(models_files, tensor.name, ties) or tensor.name,
            summed if dtype.is_floating_point else dtype,
        )
        for models_files in files.values()
    ]
    for parts in zip(*readers, strict=True):
        if not dtype.is_floating_point:
            if not all(torch.equal(part, parts[0]) for part in parts):
                raise ConfigError(f"{tensor.name} holds whole numbers that differ, which have no average")
            yield parts[0]
            continue
        for name, part in zip(files, parts, strict=True):
            if not part.isfinite().all():
                raise ConfigError(f"{tensor.name} in {name} has values that are no numbers (NaN or infinite)")
        average = sum(weight * part for weight, part in zip(weights, parts, strict=True))
        assert isinstance(average, Tensor)
        if not (rounded := average.to(dtype)).isfinite().all():
            raise ConfigError(f"{tensor.name}: an average is greater than {dtype} holds; take smaller weights")
        yield rounded


def _settings(folder: Path) -> dict[str, Any]:
    """Settings with transformers' defaults in the place of missing ones."""
    from transformers import AutoConfig

    settings = AutoConfig.from_pretrained(folder, trust_remote_code=False).to_dict()
    return {key: value for key, value in settings.items() if key not in FREE_SETTINGS and "token_id" not in key}
