"""The border with Hydra and YAML: composed settings in, `config.yaml` out, and the text of errors."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

import rlframe
from rlframe.config import environment
from rlframe.config.keys import SharedKeys
from rlframe.config.run import RunConfig
from rlframe.errors import ConfigError
from rlframe.schema import Config

Run = TypeVar("Run", bound=SharedKeys)
Settings = TypeVar("Settings", bound=Config)


def conf_dir() -> Path:
    """The folder of YAML files: inside the package in an install, beside the package in a clone."""
    package = Path(rlframe.__file__).parent
    return package / "conf" if (package / "conf").is_dir() else package.parent / "conf"


def load(composed: Any, kind: type[Run] = RunConfig) -> Run:
    """Checks a config that Hydra composed, as a run of `kind`.

    Raises ConfigError with one line for each key that is unknown, missing, of a wrong type or out of range,
    and for each combination that cannot work.
    """
    settings, names = _resolved(composed)
    run = _validated(settings, kind)
    run.keep_names(settings, names)
    return run


def checked(composed: Any, kind: type[Settings]) -> Settings:
    """Checks a config that Hydra composed and that is not a run's. Raises ConfigError as `load` does."""
    return _validated(_resolved(composed)[0], kind)


def _resolved(composed: Any) -> tuple[Any, Any]:
    """The settings, and the names of values from the environment. Raises ConfigError for keys without a value."""
    from omegaconf import OmegaConf

    environment.forget()
    with environment.explained():
        missing = sorted(OmegaConf.missing_keys(composed))
        if missing:
            raise ConfigError(
                "\n".join(f"{key}: has no value; set {key}=..., or pick an experiment=..." for key in missing)
            )
        return environment.resolve(composed)


def _validated(settings: Any, kind: type[Settings]) -> Settings:
    try:
        return kind.model_validate(settings)
    except ValidationError as error:  # without its cause, which shows values from the environment
        raise ConfigError(environment.hidden(describe(error))) from None


def save(run: SharedKeys, path: Path) -> None:
    """Writes the config as YAML for the owner alone, every value resolved but those from the environment.

    A full disk, or the death of this process, leaves the file that was there.
    """
    from omegaconf import OmegaConf

    temporary = path.with_name(path.name + ".tmp")
    temporary.touch(mode=0o600)
    temporary.chmod(0o600)  # of a file that was there
    OmegaConf.save(OmegaConf.create(_escaped(run.written())), temporary)
    temporary.replace(path)


def _escaped(settings: Any) -> Any:
    """Settings in which only names are interpolations: other texts may hold `${` too."""
    match settings:
        case environment.Name():
            return str(settings)
        case str():
            return re.sub(r"(\\*)\$\{", r"\1\1\\${", settings)
        case dict():
            return {key: _escaped(value) for key, value in settings.items()}
        case list():
            return [_escaped(value) for value in settings]
    return settings


def merge_saved(path: Path, composed: Any, overrides: list[str]) -> Any:
    """The config of a resumed run: the saved config at `path`, updated by the overrides of the command line.

    `overrides` are Hydra's (`steps=40`, `algorithm=dapo`); the choice of a group replaces the whole group.
    `experiment` is skipped, because the saved config already holds the experiment's values.
    """
    from omegaconf import OmegaConf

    saved = OmegaConf.load(path)
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        if key == "experiment":
            continue
        if override.startswith("~"):
            parent, _, name = key.rpartition(".")
            OmegaConf.select(saved, parent).pop(name, None)
            continue
        OmegaConf.update(saved, key, _unresolved(composed, key), merge=False)
    return saved


def _unresolved(composed: Any, key: str) -> Any:
    """The node at `key`, in which interpolations are still interpolations."""
    from omegaconf import OmegaConf

    parent, _, name = key.rpartition(".")
    node = (OmegaConf.select(composed, parent) if parent else composed)._get_node(name)
    return node if OmegaConf.is_config(node) and not node._is_interpolation() else node._value()


def reward_settings(name: str, settings: list[str], saved: Path) -> dict[str, Any]:
    """Settings for `reward.build`: `name`, then the saved term of that name, updated by `settings`.

    `saved` is a run's config.yaml, which need not exist; `settings` are `key=value`, the value in YAML. Either may name
    environment variables. Raises ConfigError for a variable that is not set.
    """
    from omegaconf import OmegaConf

    terms: Any = OmegaConf.load(saved).reward.terms if saved.is_file() else {}
    with environment.explained():
        matching = [environment.resolve(term)[0] for term in terms.values() if term.name == name]
        overrides, _ = environment.resolve(OmegaConf.from_dotlist(settings))
    saved_term = matching[0] if matching else {"weight": 1.0}
    return {**saved_term, "name": name, **overrides}


def saved_model(source: Path) -> str | None:
    """`model.path` in the config.yaml of the folder that a file or folder of completions is in; None without one."""
    from omegaconf import OmegaConf

    for folder in [source, *source.resolve().parents[:2]]:
        if (saved := folder / "config.yaml").is_file():
            return OmegaConf.select(OmegaConf.load(saved), "model.path")
    return None


def describe(error: ValidationError) -> str:
    """Lists all problems, a line each: the key's path, the problem, and the remedy."""
    lines = []
    for problem in error.errors(include_url=False):
        path = ".".join(str(key) for key in problem["loc"])
        match problem["type"]:
            case "extra_forbidden":
                text = f"{path}: there is no such key"
            case "missing":
                text = f"{path}: is missing"
            case "value_error":
                message = str(problem.get("ctx", {}).get("error"))
                text = f"{path}: {message}" if path else message
            case _:
                text = f"{path}: {problem['msg']}, not {problem['input']!r}"
        lines.append(text)
    return "\n".join(lines)
