"""`rlframe merge`: the weighted average of models."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

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
        models = settings_of(arguments, "rlframe merge")
        out, weights = new_folder(models.pop("out", None)), models.pop("weights", None)
        weights = [1 / len(models) for _ in models] if weights is None else numbers("weights", weights)
        count = _merge(models, weights, out)
    except (ConfigError, RunFailed, ValueError, OSError) as error:  # of a disk that is full
        return exits.refuse(HEADLINE, str(error))
    print(f"{count} tensors, averaged of {', '.join(models)}, in {out}")
    return 0


def _merge(models: dict[str, Any], weights: list[float], out: Path) -> int:
    from rlframe.model import base_model
    from rlframe.model.merge import merge

    return merge({name: base_model.prepare(str(path)) for name, path in models.items()}, weights, out)


def settings_of(arguments: list[str], verb: str) -> dict[str, Any]:
    """The values of key=value arguments, as YAML. Raises ConfigError for other arguments, and for a key given twice."""
    from omegaconf import OmegaConf
    from yaml import YAMLError

    if wrong := [argument for argument in arguments if not argument.partition("=")[2]]:
        raise ConfigError(f"{wrong[0]}: is no key=value; see {verb} --help")
    keys = Counter(argument.partition("=")[0] for argument in arguments)
    if repeated := [key for key, number in keys.items() if number > 1]:
        raise ConfigError(f"{repeated[0]}: is given {keys[repeated[0]]} times, and would count once; give it once")
    try:
        settings: Any = OmegaConf.to_container(OmegaConf.from_dotlist(arguments))
    except YAMLError as error:
        raise ConfigError(f"{' '.join(arguments)}: a value is no YAML: {' '.join(str(error).split())}") from error
    return settings


def new_folder(path: Any) -> Path:
    """A folder that does not exist yet, in one that does. Raises ConfigError."""
    if path is None:
        raise ConfigError("out: has no value; set out=FOLDER")
    out = Path(str(path)).expanduser().resolve()
    if out.exists() or not out.parent.is_dir():
        problem = f"{out} exists already" if out.exists() else f"there is no folder {out.parent}"
        raise ConfigError(f"out: {problem}; choose another folder")
    return out


def numbers(key: str, values: Any) -> list[Any]:
    """Raises ConfigError for anything but a list of numbers, as [0.5,0.5]."""
    if not isinstance(values, list) or not all(isinstance(value, int | float) for value in values):
        raise ConfigError(f"{key}: {values} is no list of numbers, as [1,2]")
    return values
