"""The files that a submitted run takes along: `conf/`, and the user's own files that the config names.

The job starts in a folder with these files, so a relative path means the same there. A path outside the working
directory gets a place in that folder, and an override that names the place:

    prompts.train.path=data/train.jsonl            data/train.jsonl
    draw.continue_from=draws/sums                  draws/sums/part_*.jsonl.gz
    prompts.train: {name: hub, path: data/sums}    all files of data/sums
    reward.terms.mine.name=/home/me/mine.py:Mine   named/0_mine.py, and ++reward.terms.mine.name='named/0_mine.py:Mine'
    prompts.train.path=/shared/train.jsonl         not sent: an absolute path of data is one of the cluster's

Python code has to be here, since its settings are checked here; so its absolute paths are sent, too.
"""

from __future__ import annotations

import glob
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlframe.errors import ConfigError
from rlframe.record.rollouts import folder_of
from rlframe.schema import USER_MODULE, module_is_installed
from rlframe.select.items import PATTERNS

MOST_MIB = 100
CONF, OWN_CONF, NAMED = "conf", "own_conf", "named"
NEVER = {".git", ".venv", "venv", "env", ".env", "site-packages", "node_modules", "runs", "__pycache__"}
CODE = re.compile(r"(.+\.py):(\w+)$")
FOLDER_KEYS = {"path", "continue_from"}  # last names of keys whose folders hold rows or completions
KEY = re.compile(r"[\w-]+(\.[\w-]+)*")  # a key that an override can name


@dataclass(frozen=True, slots=True, kw_only=True)
class SentFiles:
    """What travels with a submitted run."""

    files: dict[str, Path]  # path in the job's folder -> file of this machine
    overrides: list[str]  # for keys whose file has another path there
    kept: dict[str, str]  # key -> absolute path that is also here, and is taken for one of the cluster's

    def size(self) -> int:
        return sum(file.stat().st_size for file in self.files.values())


def sent_files(settings: Any, folders: Mapping[str, Path]) -> SentFiles:
    """The files for these settings, which have been checked here. `folders`: of YAML files, by their names in the job.

    Raises ConfigError for files that are too large together, and for a file of a folder of which nothing is sent.
    """
    here = Path.cwd()
    files = {
        f"{name}/{file.relative_to(folder)}": file
        for name, folder in folders.items()
        for file in sorted(folder.rglob("*.yaml"))
    }
    keys: dict[str, str] = {}  # path in the job's folder -> the key that names the file
    overrides, kept = [], {}
    data_sets = dict(_data_sets(settings))
    for key, value in _texts(settings):
        code = CODE.fullmatch(value)
        for file in _files_of(code[1] if code else value) + _parts_of(key, value) + data_sets.get(key, []):
            if not code and Path(value).is_absolute():
                kept[key] = value
                continue
            place = _place(file, here, len(overrides))
            if forbidden := NEVER & set(Path(place).parts[:-1]):
                raise ConfigError(
                    f"{key}: {value} is in a folder {forbidden.pop()}, of which rlframe submit sends nothing; copy it "
                    "to another folder"
                )
            files[place] = file
            keys[place] = key
            if place.startswith(f"{NAMED}/"):
                overrides.append(_override(key, value, f"{place}:{code[2]}" if code else place))
    files |= {str(file.relative_to(here)): file for file in _modules(here)}
    _check_size(files, keys)
    return SentFiles(files=files, overrides=overrides, kept=kept)


def override(key: str, value: str) -> str:
    """An override of Hydra's that gives a key this text, whatever characters it has."""
    from hydra.core.override_parser.types import Quote, QuotedString

    escaped = re.sub(r"(\\*)\$\{", r"\1\1\\${", value)  # no interpolation
    return f"{key}={QuotedString(text=escaped, quote=Quote.single).with_quotes()}"


def _override(key: str, value: str, place: str) -> str:
    if not KEY.fullmatch(key) or "*" in value or Path(value).expanduser().is_dir():
        raise ConfigError(
            f"{key}: {value} is outside the working directory; start rlframe submit in a folder above it, and "
            "give a relative path"
        )
    return override(f"++{key}", place)


def _texts(settings: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every text in nested settings, with its dotted key."""
    if isinstance(settings, str):
        yield key, settings
    items = (
        settings.items() if isinstance(settings, dict) else enumerate(settings) if isinstance(settings, list) else ()
    )
    for name, value in items:
        yield from _texts(value, f"{key}.{name}" if key else str(name))


def _files_of(text: str) -> list[Path]:
    """The files of this machine that a text names as a path or a pattern; a word is no path."""
    if "\n" in text or "\0" in text or len(text) > 1024 or not ("/" in text or Path(text).suffix):
        return []
    path = str(Path(text).expanduser())
    found = [path] if Path(path).is_file() else glob.glob(path, recursive=True) if "*" in path else []
    return [Path(name).resolve() for name in sorted(found) if Path(name).is_file()]


def _parts_of(key: str, text: str) -> list[Path]:
    """The files of rows or completions in the relative folder that a key names, or in the run of that folder."""
    if not text or key.rpartition(".")[2] not in FOLDER_KEYS or Path(text).is_absolute():
        return []
    folder = folder_of(Path(text).expanduser().resolve())
    return sorted(file.resolve() for pattern in PATTERNS for file in folder.glob(pattern))


def _data_sets(settings: Any, key: str = "") -> Iterator[tuple[str, list[Path]]]:
    """The key of each data set of the hub that is a relative folder here, and the folder's files."""
    if not isinstance(settings, dict):
        return
    path = settings.get("path")
    if settings.get("name") == "hub" and isinstance(path, str) and not Path(path).is_absolute():
        folder = Path(path).resolve()
        files = (file for file in sorted(folder.rglob("*")) if file.is_file())
        shown = [file for file in files if not any(part[0] == "." for part in file.relative_to(folder).parts)]
        yield f"{key}.path", shown
    for name, value in settings.items():
        yield from _data_sets(value, f"{key}.{name}" if key else str(name))


def _place(file: Path, here: Path, number: int) -> str:
    """The file's path in the job's folder."""
    if file.is_relative_to(here):
        return str(file.relative_to(here))
    return f"{NAMED}/{number}_{file.name}"


def _modules(here: Path) -> Iterator[Path]:
    """The user's modules in the working directory that the check of the config has imported."""
    for name, module in list(sys.modules.items()):
        file = Path(getattr(module, "__file__", None) or "/")
        if name.startswith(USER_MODULE) or file.suffix != ".py" or not file.is_relative_to(here):
            continue  # a file by its path was found in the settings
        if not NEVER & set(file.relative_to(here).parts[:-1]) and not module_is_installed(module):
            yield file


def _check_size(files: dict[str, Path], keys: dict[str, str]) -> None:
    sizes = {place: file.stat().st_size for place, file in files.items()}
    if (total := sum(sizes.values())) <= MOST_MIB << 20:
        return
    largest = sorted(sizes, key=lambda place: -sizes[place])[:3]
    named = ", ".join(f"{files[place]} of {sizes[place] / 2**20:.1f} MiB" for place in largest)
    raise ConfigError(
        f"{keys.get(largest[0], largest[0])}: rlframe submit sends at most {MOST_MIB} MiB, and this run's files have "
        f"{total / 2**20:.1f} MiB, the largest of them {named}; put such files on storage that the cluster's machines "
        "share, and give their absolute paths"
    )
