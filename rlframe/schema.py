"""`Config`, the base of everything that YAML can say, and how a class is picked by name or by import path."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict

USER_MODULE = "rlframe_user_"  # what a module is called that was loaded from a user's file
user_modules: set[str] = set()  # names of modules that no other machine can be expected to have


class Config(BaseModel):
    """Validated settings: unknown keys are errors, nothing is coerced from another type, nothing changes later.

    Fields have no defaults: every value stands in a YAML file of `conf/`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


T = TypeVar("T", bound=Config)


def import_class(path: str, base: type[T]) -> type[T]:
    """The class at `package.module:Class` or `folder/file.py:Class`, which must be a subclass of `base`.

    Raises ValueError with what is wrong: no such module or file, no such name in it, not a subclass.
    """
    where, _, name = path.rpartition(":")
    if where.endswith(".py"):
        file = Path(where).expanduser().resolve()
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
        if (here := str(Path.cwd())) not in sys.path:  # as `python -m` would have it
            sys.path.insert(0, here)
        try:
            module = importlib.import_module(where)
        except ModuleNotFoundError as error:
            raise ValueError(f"{path!r}: cannot import {where!r} ({error})") from error
    if not _installed(module):
        user_modules.add(module.__name__)
    found: Any = getattr(module, name, None)
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ValueError(f"{path!r}: {where} has no class {name!r} that extends {base.__module__}:{base.__name__}")
    return found


def _installed(module: ModuleType) -> bool:
    """Whether every machine of a cluster can be expected to have a module; a user's own file travels by value."""
    file = Path(module.__file__ or "").resolve()
    folders = [Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib")]
    return module.__name__.partition(".")[0] == "rlframe" or any(file.is_relative_to(folder) for folder in folders)


def one_of(value: Any, base: type[T], builtin: dict[str, type[T]]) -> T:
    """Validates `value` with the class that its `name` picks: a built-in one, or a user's by import path.

    Raises ValueError naming the known names where `name` is none of them.
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
