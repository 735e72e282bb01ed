"""`rlframe merge`: the weighted average of models."""

from __future__ import annotations

import json
from pathlib import Path

from rlframe.cli import exits
from rlframe.errors import ConfigError, RunFailed

HEADLINE = "The models do not merge"
USAGE = """rlframe merge out=FOLDER NAME=MODEL NAME=MODEL ... [weights=[0.5,0.5]]

Writes the weighted average of models of the same shape as a Hugging Face folder: settings, tokenizer and types of the
first one, sums in float32. A model is a folder, a hub id or a GGUF file; NAME is what errors call it. Weights have the
sum 1; left out, they are equal. Memory holds pieces of a tensor, whatever the size of the models.
"""


def main(arguments: list[str]) -> int:
    """Merges; returns the exit code."""
    if {"-h", "--help"} & set(arguments):
        print(USAGE, end="")
        return 0
    try:
        settings = pairs(arguments, "rlframe merge")
        out, weights = new_folder(settings.pop("out", "")), settings.pop("weights", "")
        count = _merge(settings, numbers("weights", weights) if weights else [], out)
    except (ConfigError, RunFailed, ValueError) as error:
        return exits.refuse(HEADLINE, str(error))
    print(f"{count} tensors, averaged of {', '.join(settings)}, in {out}")
    return 0


def _merge(models: dict[str, str], weights: list[float], out: Path) -> int:
    from rlframe.model import base_model
    from rlframe.model.merge import merge

    folders = {name: base_model.prepare(path) for name, path in models.items()}
    return merge(folders, weights or [1 / len(models)] * len(models), out)


def pairs(arguments: list[str], verb: str) -> dict[str, str]:
    """The values of key=value arguments. Raises ConfigError for other arguments and for a key that is twice there."""
    settings: dict[str, str] = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals or not value or key in settings:
            raise ConfigError(f"{argument}: is no key=value, or comes twice; see {verb} --help")
        settings[key] = value
    return settings


def new_folder(path: str) -> Path:
    """A folder that does not exist yet, in one that does. Raises ConfigError."""
    out = Path(path).expanduser().resolve()
    if not path:
        raise ConfigError("out: has no value; set out=FOLDER")
    if out.exists():
        raise ConfigError(f"out: {out} exists already; choose another folder")
    if not out.parent.is_dir():
        raise ConfigError(f"out: there is no folder {out.parent}")
    return out


def numbers(key: str, text: str) -> list[float]:
    """A list of numbers, as [0.5,0.5]. Raises ConfigError."""
    try:
        values = json.loads(text)
    except ValueError:
        values = None
    if not isinstance(values, list) or not all(isinstance(value, int | float) for value in values):
        raise ConfigError(f"{key}: {text} is no list of numbers, as [1, 2]")
    return values
