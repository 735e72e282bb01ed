"""The base model of a policy: a Hugging Face folder on this machine, made once from what `model.path` names.

`model.path` is a Hugging Face folder, a model of the hub (`Qwen/Qwen3-0.6B`), a GGUF file, or
`package://name/file.gguf`: a file that an installed Python package carries. Models of the hub stay in the cache of
huggingface_hub. GGUF files are dequantised by transformers and kept in the user's cache folder.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import logging
import math
import os
import re
import shutil
import socket
from collections.abc import Callable, Iterable
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

from rlframe.errors import ConfigError, RunFailed
from rlframe.model import gguf_file, hub, quantisation
from rlframe.schema import ask_this_machine, is_for_another_machine

PACKAGE = "package://"
BIAS = "e_score_correction_bias"  # [E] of a router, added to scores for the choice of experts, not for their weights


def locate(path: str) -> Path:
    """The folder or GGUF file that `path` names; of a model of the hub, a folder with its settings only.

    A folder of this machine comes before a model of the hub. Raises ValueError saying what is missing: the path, the
    package, the folder's config.json, or the model on the hub.
    """
    ask_this_machine()
    if path.startswith(PACKAGE):
        package, _, file = path.removeprefix(PACKAGE).partition("/")
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise ValueError(f"{path}: the package {package!r} is not installed in this environment")
        source = Path(spec.submodule_search_locations[0]) / file
    else:
        source = Path(path).expanduser().resolve()
        if hub_model := _hub_model(path):
            try:
                source = hub.settings(hub_model)
            except ConfigError as error:
                raise ConfigError(f"{path}: there is no folder {source}, and {error}") from error
    if source.is_dir() and not (source / "config.json").is_file():
        raise ValueError(f"{path}: the folder has no config.json, so it is no Hugging Face model")
    if not source.is_dir() and not (source.is_file() and source.suffix == ".gguf"):
        raise ValueError(
            f"{path}: there is no such Hugging Face folder or .gguf file (looked at {source}), and a model of the hub "
            "is written owner/name"
        )
    if code := own_code(source):
        raise ValueError(
            f"{path}: loading it would run Python code of the model's own ({code}), and rlframe runs none; use a model "
            "whose architecture transformers has itself, or convert this one to such an architecture"
        )
    return source


def own_code(source: Path) -> str | None:
    """The `auto_map` of a model whose architecture transformers lacks and the folder brings along; None for others."""
    if not source.is_dir() or not (
        auto_map := (settings := json.loads((source / "config.json").read_text())).get("auto_map")
    ):
        return None
    from transformers import CONFIG_MAPPING

    return None if settings.get("model_type") in CONFIG_MAPPING else ", ".join(map(str, auto_map.values()))


def pinned(path: str) -> str:
    """The same path, with the commit of a model of the hub: a run that is resumed later finds the same model."""
    source = locate(path)
    hub_model = _hub_model(path)
    return f"{hub_model.name}@{source.name}" if hub_model else path


def context_length(path: str) -> int | None:
    """Tokens that the model at `path` was made for, prompt and completion together; None: any number.

    State-space models and ALiBi have no limit. A config.json without the number has the default of its model type.
    """
    source = locate(path)
    if (folder := _folder(source)).is_dir():
        length = _context_length(_settings(folder))
        return _context_length(_defaults(folder)) if length is None else length
    return int(gguf_file.settings(source)["max_position_embeddings"])


def vocabulary_size(path: str) -> int:
    """Number of token ids of the model at `path`; without the number in its config.json, that of its model type."""
    known = settings(path).get("vocab_size")
    return int(known or _defaults(_folder(locate(path)))["vocab_size"])


def settings(path: str) -> dict[str, Any]:
    """Settings of the language model at `path`, by the keys of a config.json; of a GGUF file its sizes alone."""
    source = locate(path)
    folder = _folder(source)
    return _settings(folder) if folder.is_dir() else gguf_file.settings(source)


def kind(path: str) -> str:
    """transformers' name for the architecture of the model at `path`: "qwen3_moe"."""
    source = locate(path)
    return _settings(source)["model_type"] if source.is_dir() else "a GGUF file"


def has_tensor(path: str, name: str) -> bool:
    """True if the weights at `path` have a tensor whose name ends in `name`."""
    return any(tensor.endswith(name) for tensor in _tensor_names(path))


def expert_parts(path: str) -> set[str]:
    """Names of the router and of an expert's matrices in the mixture at `path`; empty for any other model.

    The answer for Qwen3-MoE is {"gate", "gate_proj", "up_proj", "down_proj"}.
    """
    matches = (re.search(r"\.experts\.\d+\.(\w+)\.weight$", name) for name in _tensor_names(path))
    names = {match[1] for match in matches if match}
    return names | {"gate"} if names else names


def experts(path: str) -> int:
    """Number of routed experts in a layer of the mixture at `path`; 0 for any other model."""
    matches = (re.search(r"\.experts\.(\d+)\.", name) for name in _tensor_names(path))
    return max((int(match[1]) + 1 for match in matches if match), default=0)


def parameters(path: str) -> int:
    """Number of the parameters of the model at `path`, from the headers of the safetensors files.

    Before such files exist, an estimate from bytes: 2 bytes a parameter in the index of a hub's model, half a byte a
    parameter in a GGUF file.
    """
    source = _folder(locate(path))
    if not source.is_dir():
        return 2 * locate(path).stat().st_size
    if shapes := _tensor_shapes(source):
        return sum(map(math.prod, shapes.values()))
    index = source / hub.INDEX
    if index.is_file():
        return json.loads(index.read_text())["metadata"]["total_size"] // 2
    hub_model = _hub_model(path)
    return hub.parameters(hub_model) if hub_model else 0


def _tensor_names(path: str) -> Iterable[str]:
    source = locate(path)
    if not source.is_dir():
        return ()  # transformers reads no GGUF file of a mixture with a bias, or with its experts one by one
    index = source / hub.INDEX
    if index.is_file():
        return json.loads(index.read_text())["weight_map"]
    shapes = _tensor_shapes(source)
    hub_model = _hub_model(path)
    return hub.tensor_names(hub_model) if hub_model and not shapes else shapes


def _tensor_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Tensor -> shape, from the headers of a folder's safetensors files; empty for a folder without such files."""
    from safetensors import safe_open

    files = [safe_open(path, framework="numpy") for path in folder.glob("*.safetensors")]
    return {name: tuple(file.get_slice(name).get_shape()) for file in files for name in file.keys()}  # noqa: SIM118


def prepare(path: str) -> Path:
    """The Hugging Face folder for `path`, with all files.

    The files of a model of the hub are downloaded, and a GGUF file is dequantised to bfloat16 on first use (15 s for
    135M).
    """
    if hub_model := _hub_model(path):
        return hub.download(hub_model)
    source = locate(path)
    folder = _folder(source)
    if not folder.is_dir():
        make_folder(folder, lambda aside: _dequantise(source, aside))
    return folder


def require(folder: Path) -> None:
    """Raises RunFailed on a machine without the folder, which `prepare` has found or made on another machine."""
    if not (folder / "config.json").is_file():
        raise RunFailed(
            f"model.path: there is no model at {folder} on this machine ({socket.gethostname()}), and every machine "
            "with an engine or a rank reads the model under the path that it has on the driver's machine; put it on "
            "storage that they share (HF_HOME for models of the hub, XDG_CACHE_HOME for GGUF files), or copy it to each"
        )


def absolute(path: str) -> str:
    """The path, made absolute if it exists on this machine, because processes have different working directories."""
    here = Path(path).expanduser()
    return str(here.resolve()) if not is_for_another_machine() and here.exists() else path


def make_folder(folder: Path, fill: Callable[[Path], None]) -> None:
    """Fills a folder under a temporary name and renames it last, so that no process finds half a folder.

    If another process was first, its folder stays: it holds the same files.
    """
    aside = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        fill(aside)
        aside.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _hub_model(path: str) -> hub.HubModel | None:
    """The model of the hub that `path` means, unless there is such a path on this machine."""
    return None if Path(path).expanduser().exists() else hub.parse(path)


def _folder(source: Path) -> Path:
    """A Hugging Face folder itself; of a GGUF file, the folder that `prepare` makes, which need not be there yet."""
    if source.is_dir():
        return source
    stat = source.stat()
    key = hashlib.sha256(f"{source.name} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "rlframe" / "models"
    return cache / f"{source.stem}-{key}"


def _context_length(settings: dict[str, Any]) -> int | None:
    names = ("max_position_embeddings", "n_positions", "max_seq_len")
    return next((int(settings[name]) for name in names if settings.get(name)), None)


def quantisation_method(path: str) -> str | None:
    """The method by which the weights in the folder at `path` are quantised; None for any other model."""
    source = locate(path)
    return quantisation.method(source) if source.is_dir() else None


def is_dequantised_in_loading(path: str) -> bool:
    """True for FP8 weights with a scale for each block: the learner dequantises these while loading."""
    source = locate(path)
    return source.is_dir() and quantisation.fp8_block(source) is not None


def _settings(folder: Path) -> dict[str, Any]:
    """Settings of the language model in a folder's config.json."""
    whole = json.loads((folder / "config.json").read_text())
    return whole.get("text_config", whole)


def _defaults(folder: Path) -> dict[str, Any]:
    """Settings of the language model, with transformers' defaults of its type in the place of missing ones."""
    from transformers import AutoConfig

    return vars(AutoConfig.from_pretrained(folder, trust_remote_code=False).get_text_config(decoder=True))


def _dequantise(gguf: Path, folder: Path) -> None:
    # transformers imports DeepSpeed, which warns that the driver has no GPU.
    logging.getLogger("DeepSpeed").addFilter(lambda record: record.levelno >= logging.ERROR)
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    with redirect_stderr(io.StringIO()):  # hides three progress bars
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent,
            gguf_file=gguf.name,
            dtype=torch.bfloat16,
            quantization_config=GgufConfig(dequantize=True),
            trust_remote_code=False,
        )
        config: Any = model.config
        if hasattr(config, "quantization_config"):  # the weights written below are dequantised
            del config.quantization_config
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, trust_remote_code=False).save_pretrained(folder)
