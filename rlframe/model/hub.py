"""A model of the Hugging Face hub: its id, and its files in the cache of huggingface_hub (HF_HOME).

The settings are fetched first, so that settings of a run that cannot work are refused before the weights travel.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from rlframe.errors import ConfigError

ID = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@([\w./-]+))?")
INDEX = "model.safetensors.index.json"  # of a model with several files of weights: tensor name -> file
SETTINGS = ["config.json", INDEX]
# Weights, settings, tokenizer and chat template. Not the same weights in other formats, and no code.
FILES = ["*.safetensors", "*.json", "*.txt", "*.model", "*.tiktoken", "*.jinja"]
IGNORED = ["*/*", "consolidated*"]
WITHOUT_NETWORK = (
    "Without network give a folder, or a model that is in the cache (HF_HOME), with HF_HUB_OFFLINE=1; HF_ENDPOINT "
    "names a mirror"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HubModel:
    """A model on the hub: `Qwen/Qwen3-0.6B`, or with a branch, tag or commit `Qwen/Qwen3-0.6B@c1899de`."""

    name: str
    revision: str


def parse(path: str) -> HubModel | None:
    """The model that a path of the form `owner/name` or `owner/name@revision` means; None for any other path."""
    match = ID.fullmatch(path)
    return HubModel(name=match[1], revision=match[2] or "main") if match else None


@cache
def settings(model: HubModel) -> Path:
    """The folder of a model's config.json and index, from the hub or the cache. Its name is the commit.

    Raises ConfigError with the remedies for a model that neither has.
    """
    folder = _snapshot(model, model.revision, SETTINGS)
    if not (folder / "config.json").is_file():
        raise ConfigError(f"the hub's model {model.name} has no config.json, so it is no model of transformers")
    return folder


def download(model: HubModel) -> Path:
    """The folder of all files that a run needs, of the commit of `settings`. Raises ConfigError."""
    folder = _snapshot(model, settings(model).name, FILES)
    present = {path.name for path in folder.glob("*.safetensors")}
    if not present:
        raise ConfigError(
            f"the hub's model {model.name} has no weights in .safetensors files; convert it with transformers' "
            "save_pretrained, and give the folder"
        )
    index = folder / INDEX
    named = set(json.loads(index.read_text())["weight_map"].values()) if index.is_file() else set()
    if missing := sorted(named - present):  # by an interrupted download of another program
        raise ConfigError(
            f"the hub's model {model.name} is not whole in the cache, {missing[0]} is missing. {WITHOUT_NETWORK}"
        )
    return folder


def tensor_names(model: HubModel) -> Iterable[str]:
    """Names of the tensors of a model with one file of weights. Raises ConfigError."""
    return _header(model).tensors


def parameters(model: HubModel) -> int:
    """Number of the parameters of a model with one file of weights. Raises ConfigError."""
    return sum(_header(model).parameter_count.values())


@cache
def _header(model: HubModel) -> Any:
    """The header of a model's only file of weights, a few KB of the file."""
    from huggingface_hub import HfApi

    with _explained(model):
        return HfApi().parse_safetensors_file_metadata(model.name, "model.safetensors", revision=settings(model).name)


def _snapshot(model: HubModel, revision: str, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()  # they would tear the console's lines
    with _explained(model):
        return Path(snapshot_download(model.name, revision=revision, allow_patterns=patterns, ignore_patterns=IGNORED))


@contextmanager
def _explained(model: HubModel) -> Iterator[None]:
    """Raises ConfigError in place of errors of huggingface_hub, whose texts have addresses that may hold secrets."""
    import httpx2
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise ConfigError(
            f"the hub's model {model.name} is gated: accept its conditions on its page, and set HF_TOKEN"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ConfigError(f"the hub's model {model.name} has no revision {model.revision!r}") from error
    except errors.RepositoryNotFoundError as error:
        raise ConfigError(
            f"the hub has no model {model.name}, or the model is private: check the name, or set HF_TOKEN"
        ) from error
    except (OSError, httpx2.HTTPError, errors.EntryNotFoundError) as error:
        cause = error.__cause__ or error
        raise ConfigError(
            f"the hub's model {model.name} (revision {model.revision}) is not whole in the cache, and the hub does not "
            f"answer ({type(cause).__name__}). {WITHOUT_NETWORK}"
        ) from error
