"""Values from the environment: a run uses the values, and everything that is written holds the names.

reward.terms.judge.base_url: ${oc.env:JUDGE_URL}      the judge gets the value of JUDGE_URL,
                                                      config.yaml and W&B keep ${oc.env:JUDGE_URL}
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

from rlframe.errors import ConfigError
from rlframe.record.secrets import HOW, secret

Path: TypeAlias = tuple[str | int, ...]  # of a value in nested settings: ("reward", "terms", "judge", "base_url")
MIN_HIDDEN = 6  # characters of a value that is hidden in errors; shorter ones, as math, are parts of other words
_names_of_values: dict[str, str] = {}  # of this process: value -> its name, for errors
NOT_SET = re.compile(r"Environment variable '(.+?)' not found")


class Name(str):
    """The interpolation, such as `${oc.env:JUDGE_URL}`, that stands in the place of a value from the environment."""


def resolve(composed: Any) -> tuple[Any, Any]:
    """A config's settings twice: with every value resolved, and with a `Name` for each value that an environment
    variable is a part of, through whatever other keys or resolvers. `hidden` knows the values from now on.

    Raises ConfigError for a mapping in a variable: a key inside could not be written as a name.
    """
    from omegaconf import OmegaConf

    with _recorded_reads() as reads:
        names = _named(composed, OmegaConf.to_container(composed, resolve=False), reads)
        settings = OmegaConf.to_container(composed, resolve=True)
    for path, name in paths(names).items():
        value = value_at(settings, path)
        if isinstance(value, dict):
            key = ".".join(map(str, path))
            raise ConfigError(f"{key}: {name} holds several keys; give each its own environment variable")
        _names_of_values.update({str(text): name for text in (value if isinstance(value, list) else [value])})
    return settings, names


def provide(names: Iterable[str]) -> None:
    """Sets the environment variables of a run's secrets for the libraries of this process; `hidden` knows the values.

    Raises ConfigError for a secret that this machine does not have.
    """
    for index, name in enumerate(names):
        if (value := secret(name)) is None:
            raise ConfigError(f"secrets.{index}: {name} has no value on this machine; {HOW}")
        os.environ[name] = value
        _names_of_values[value] = f"${{oc.env:{name}}}"


def forget() -> None:
    """`hidden` knows no values any more: another run begins."""
    _names_of_values.clear()


@contextmanager
def explained() -> Iterator[None]:
    """Raises ConfigError, with the key, for values that cannot be resolved, as of a variable that is not set."""
    from omegaconf.errors import OmegaConfBaseException

    try:
        yield
    except OmegaConfBaseException as error:
        problem = str(error).splitlines()[0]
        if not_set := NOT_SET.search(problem):
            problem = f"the environment variable {not_set[1]} is not set; set it, or give the key a value of its own"
        raise ConfigError(f"{error.full_key}: {problem}") from None


def paths(names: Any) -> dict[Path, Name]:
    """Where the names stand in settings of `resolve`."""
    if isinstance(names, Name):
        return {(): names}
    items = names.items() if isinstance(names, dict) else enumerate(names) if isinstance(names, list) else ()
    return {(key, *path): name for key, inner in items for path, name in paths(inner).items()}


def value_at(settings: Any, path: Path) -> Any:
    """The value at a path. Raises LookupError."""
    for key in path:
        settings = settings[key]
    return settings


def hidden(text: str) -> str:
    """A message in which names take the place of the values that `resolve` has read from the environment."""
    for value in sorted(_names_of_values, key=len, reverse=True):
        if len(value) >= MIN_HIDDEN:
            for spelling in {value, repr(value)[1:-1], json.dumps(value)[1:-1]}:
                text = text.replace(spelling, _names_of_values[value])
    return text


def _named(node: Any, raw: Any, reads: list[str]) -> Any:
    """The values of an OmegaConf container, with names; `raw`: the same container without any value resolved."""
    from omegaconf import OmegaConf

    def named(key: Any, text: Any) -> Any:
        if not OmegaConf.is_interpolation(node, key):
            return _named(node[key], text, reads) if isinstance(text, dict | list) else node[key]
        reads.clear()
        value = node[key]
        if reads:
            return Name(text)
        if OmegaConf.is_config(value):  # `a: ${b}`, and values in b may come from the environment
            return _named(value, OmegaConf.to_container(value, resolve=False), reads)
        return value

    if isinstance(raw, dict):
        return {key: named(key, text) for key, text in raw.items()}
    return [named(index, text) for index, text in enumerate(raw)]


@contextmanager
def _recorded_reads() -> Iterator[list[str]]:
    """Inside, the list gets the name of every variable that a config reads."""
    from omegaconf import OmegaConf
    from omegaconf.resolvers import oc

    reads: list[str] = []

    def read(key: str, *default: Any) -> Any:
        reads.append(key)
        if (value := os.environ.get(key)) is not None:
            _names_of_values[value] = f"${{oc.env:{key}}}"
        return oc.env(key, *default)

    OmegaConf.register_new_resolver("oc.env", read, replace=True)
    try:
        yield reads
    finally:
        OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)
