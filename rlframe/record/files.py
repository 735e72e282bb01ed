"""Crash-safe files: a rule for writing whole files, and a rule for lines of JSON."""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from rlframe.record.manifest import sync_folder


def replace_file(path: Path, content: bytes) -> None:
    """Writes a file beside `path`, then renames the file. Readers never find half of it, even after a crash."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def write_json_lines(path: Path, objects: Iterable[dict[str, Any]]) -> None:
    """Replaces a file by one with a line for each object, compressed where the name ends in .gz."""
    lines = "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in objects)
    # UTF-8 has no lone surrogate, which a reward may quote; a backslash escape of it is JSON.
    content = lines.encode(errors="backslashreplace")
    replace_file(path, gzip.compress(content, compresslevel=5) if path.suffix == ".gz" else content)


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A new file, which takes the place of `path` once the disk has all of it: after a power cut `path` is whole."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def save_json_lines(path: Path, objects: Iterable[dict[str, Any]]) -> None:
    """Replaces a .gz file as `write_json_lines` does, with one object in memory at a time, and by `replacing`."""
    with replacing(path) as raw, gzip.GzipFile(filename="", mode="wb", compresslevel=5, fileobj=raw) as file:
        for value in objects:
            file.write((json.dumps(value, ensure_ascii=False) + "\n").encode(errors="backslashreplace"))


def read_json_lines(path: Path, *fields: str) -> list[dict[str, Any]]:
    """Reads a JSON object from each line of a file, decompressed where the name ends in .gz.

    A last line without a newline was torn by a crash and is ignored. Raises ValueError, with file and line number, for
    every other line that is no JSON object or lacks one of `fields`.
    """
    content = path.read_bytes()
    if path.suffix == ".gz":
        content = gzip.decompress(content)
    objects = []
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        try:
            value = json.loads(line.decode())
        except ValueError:  # of JSON or of UTF-8
            value = None
        if not isinstance(value, dict):
            raise ValueError(f"{path}, line {number}: not a JSON object: {line[:80].decode(errors='replace')!r}")
        for field in fields:
            if field not in value:
                raise ValueError(f"{path}, line {number}: no field {field!r}")
        objects.append(value)
    return objects


def stream_json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The number and the JSON object of each line that is not blank, one line in memory at a time.

    Raises ValueError, with file and line number, for a line that is no JSON object, and for a torn .gz file.
    """
    number = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.isspace():
                    continue
                try:
                    value = json.loads(line)
                except ValueError:  # of JSON or of UTF-8
                    value = None
                if not isinstance(value, dict):
                    raise ValueError(
                        f"{path}, line {number}: not a JSON object: {line[:80].decode(errors='replace')!r}"
                    )
                yield number, value
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}: the file is torn after line {number} ({error}); write it again") from error
