"""`Config`, the base class of all settings, and `one_of`, which picks a class by its name or by an import path.

A run that is submitted is checked on another machine than its own: `for_another_machine`.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import re
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, TypeAlias, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

USER_MODULE = "rlframe_user_"  # prefix of the name of a module that was loaded from a user's file
LABEL = "[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
user_modules: set[str] = set()  # names of modules that exist on this machine alone, so Ray must send their code


class Config(BaseModel):
    """Validated settings. Unknown keys are errors, no value is converted from another type, and fields are frozen.

    Fields have no defaults: a YAML file of `conf/` holds every value.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


EMPTY_FOR_NULL = BeforeValidator(lambda value: {} if value is None else value)
# A mapping whose keys vLLM or DeepSpeed defines. null in YAML: empty.
Passthrough: TypeAlias = Annotated[dict[str, Any], EMPTY_FOR_NULL]
# Names and values of labels that a node of the Ray cluster must have: {"rlframe.io/role": "rollout"}. Ray also takes
# the values "!x", "in(x, y)" and "!in(x, y)".
Label: TypeAlias = Annotated[str, Field(pattern=rf"^([a-z0-9.-]+/)?{LABEL}$")]
LabelSelector: TypeAlias = dict[
    Label,
    Annotated[str, Field(pattern=rf"^!?({LABEL}|in\({LABEL}(, ?{LABEL})*\))$")],
]
Labels: TypeAlias = Annotated[LabelSelector, EMPTY_FOR_NULL]
# Amounts of Ray's custom resources, which `ray start --resources` gives to nodes: {"rollout": 1}.
ResourceName: TypeAlias = Annotated[str, AfterValidator(lambda name: _custom_resource(name))]
ResourceAmounts: TypeAlias = dict[ResourceName, Annotated[float, Field(gt=0)]]
Resources: TypeAlias = Annotated[ResourceAmounts, EMPTY_FOR_NULL]
# Name of an environment variable with a secret. A refusal must not show the text: it may be the secret itself.
SecretName: TypeAlias = Annotated[str, AfterValidator(lambda name: _variable(name))]

T = TypeVar("T", bound=Config)

_elsewhere: ContextVar[bool] = ContextVar("elsewhere", default=False)


class AnotherMachine(Exception):
    """A rule asks for what only the machine of the run knows: its models, packages or processor."""


@contextmanager
def for_another_machine() -> Iterator[None]:
    """Settings that are checked inside are those of a run on another machine, which checks the rest itself."""
    token = _elsewhere.set(True)
    try:
        yield
    finally:
        _elsewhere.reset(token)


def is_for_another_machine() -> bool:
    return _elsewhere.get()


def ask_this_machine() -> None:
    """Called before a look at this machine. Raises AnotherMachine where the run is for another one."""
    if _elsewhere.get():
        raise AnotherMachine


def _custom_resource(name: str) -> str:
    if name in ("CPU", "GPU", "memory", "object_store_memory") or name.startswith("node:"):
        raise ValueError("is Ray's own resource; cpus, gpus and labels are the keys for it")
    return name


def _variable(name: str) -> str:
    if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError("is no name of an environment variable; give the name alone, and never the secret itself")
    return name


def import_class(path: str, base: type[T]) -> type[T]:
    """The class at `package.module:Class` or `folder/file.py:Class`, which must be a subclass of `base`.

    Raises ValueError if the module or file does not exist, has no such class, or the class is no subclass.
    """
    location, _, name = path.rpartition(":")
    if location.endswith(".py"):
        file = Path(location).expanduser().resolve()
        if not file.is_file():
            raise ValueError(f"{path!r}: there is no file {file}")
        module_name = f"{USER_MODULE}{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}"
        if module_name not in sys.modules:
            spec = importlib.util.spec_from_file_location(module_name, file)
            assert spec and spec.loader
            sys.modules[module_name] = module = importlib.util.module_from_spec(spec)
            try:
                spec.loader.exec_module(module)
            except BaseException:
                del sys.modules[module_name]
                raise
        module = sys.modules[module_name]
    else:
        # `python -m` also imports from the working directory.
        if (working_dir := str(Path.cwd())) not in sys.path:
            sys.path.insert(0, working_dir)
        try:
            module = importlib.import_module(location)
        except ModuleNotFoundError as error:
            raise ValueError(f"{path!r}: cannot import {location!r} ({error})") from error
    if not module_is_installed(module):
        user_modules.add(module.__name__)
    member: Any = getattr(module, name, None)
    if not (isinstance(member, type) and issubclass(member, base)):
        raise ValueError(f"{path!r}: {location} has no class {name!r} that extends {base.__module__}:{base.__name__}")
    return member


def deep_merge(settings: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`settings` with the values of `changes`; a mapping in both is merged, at any depth."""
    merged = dict(settings)
    for key, value in changes.items():
        below = merged.get(key)
        merged[key] = deep_merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def module_is_installed(module: ModuleType) -> bool:
    """True if every machine of a cluster has the module: rlframe, the standard library, or an installed package."""
    file = Path(module.__file__ or "").resolve()
    folders = [Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib")]
    return module.__name__.partition(".")[0] == "rlframe" or any(file.is_relative_to(folder) for folder in folders)


def one_of(value: Any, base: type[T], builtin: dict[str, type[T]]) -> T:
    """Validates `value` with the class that its `name` picks: a built-in class, or a user's class by import path.

    Raises ValueError with the known names if `name` is unknown.
    """
    if isinstance(value, base):
        return value
    name = value.get("name") if isinstance(value, dict) else None
    if isinstance(name, str) and ":" in name:
        return import_class(name, base).model_validate(value)
    if name not in builtin:
        raise ValueError(
            f"name: {name!r} is none of {', '.join(sorted(builtin))}, nor an import path such as my_module:MyClass"
        )
    return builtin[name].model_validate(value)
