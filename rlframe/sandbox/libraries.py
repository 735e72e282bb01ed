"""The shared libraries that programs and C modules need, read from ELF files as the dynamic loader reads them.

A library directory of the system holds much else (on Debian and Fedora the packages of the system's own Python), so a
sandbox opens single libraries and no directory.
"""

from __future__ import annotations

import functools
import mmap
import os
import struct
from collections import defaultdict

CACHE = "/etc/ld.so.cache"
CACHE_MAGIC = b"glibc-ld.so.cache1.1"  # struct cache_file_new, elf/dl-cache.h of glibc
CACHE_HEADER_BYTES, CACHE_ENTRY = 48, struct.Struct("<iIIIQ")  # flags, name, path, OS version, hardware capabilities
LOADED_LATE = ["libgcc_s.so.1"]  # by glibc, when a thread is cancelled
DEFAULT_FOLDERS = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib")
ELF_64_LITTLE = b"\x7fELF\x02\x01"
# type, flags, offset in the file, address in memory, physical address, bytes in the file, bytes in memory, alignment
PROGRAM_HEADER, DYNAMIC_ENTRY = struct.Struct("<II6Q"), struct.Struct("<qQ")
LOADED, DYNAMIC, LOADER = 1, 2, 3  # PT_LOAD, PT_DYNAMIC, PT_INTERP
NEEDED, STRINGS, RPATH, RUNPATH = 1, 5, 15, 29  # DT_NEEDED, DT_STRTAB, DT_RPATH, DT_RUNPATH


@functools.cache
def shared_libraries(objects: tuple[str, ...]) -> tuple[str, ...]:
    """Paths of the libraries that the objects (programs, C modules) need, directly or not, and of their loader. A
    library that is nowhere is left out: the import of its module fails, as it does outside."""
    cached = _cached_libraries()
    folders: dict[str, None] = {}  # that any object names: an RPATH also holds for the libraries of a library
    libraries: dict[str, None] = {}

    def add(names: list[str]) -> None:
        for name in names:
            paths = [path for path in (*(f"{folder}/{name}" for folder in folders), *cached[name]) if is_object(path)]
            paths = paths or [path for folder in DEFAULT_FOLDERS if is_object(path := f"{folder}/{name}")]
            pending.extend(path for path in paths if path not in libraries)
            libraries.update(dict.fromkeys(paths))

    pending = list(objects)
    add(LOADED_LATE)
    while pending:
        with open(pending.pop(), "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            loader, names, object_folders = _requests(content)
        origin = os.path.dirname(file.name)
        folders |= dict.fromkeys(folder.replace("$ORIGIN", origin) for folder in object_folders)
        add(names)
        libraries |= dict.fromkeys(loader)
    return tuple(libraries)


def _requests(content: mmap.mmap) -> tuple[list[str], list[str], list[str]]:
    """Of an ELF file: the path of the loader, if any; the names of libraries; the folders to look for them."""
    (start,) = struct.unpack_from("<Q", content, 32)
    size, count = struct.unpack_from("<HH", content, 54)
    headers = [PROGRAM_HEADER.unpack_from(content, start + size * index) for index in range(count)]
    loader = [
        content[offset : offset + size - 1].decode() for kind, _, offset, *_, size, _, _ in headers if kind == LOADER
    ]
    entries = [
        entry
        for kind, _, offset, _, _, size, *_ in headers
        if kind == DYNAMIC
        for entry in DYNAMIC_ENTRY.iter_unpack(content[offset : offset + size])
    ]
    [strings] = [value for tag, value in entries if tag == STRINGS] or [0]
    for kind, _, offset, address, _, size, *_ in headers:
        if kind == LOADED and address <= strings < address + size:
            strings += offset - address
            break

    def texts(*tags: int) -> list[str]:
        places = [strings + value for tag, value in entries if tag in tags]
        return [content[place : content.find(b"\0", place)].decode() for place in places]

    folders = [folder for text in texts(RPATH, RUNPATH) for folder in text.split(":") if folder]
    return loader, texts(NEEDED), folders


def is_object(path: str | os.PathLike[str]) -> bool:
    """True for an ELF file of this kind of machine's size and byte order."""
    try:
        with open(path, "rb") as file:
            return file.read(len(ELF_64_LITTLE)) == ELF_64_LITTLE
    except OSError:
        return False


def _cached_libraries() -> defaultdict[str, list[str]]:
    """name -> paths, of all libraries that the system's cache knows; empty where the C library has no such cache."""
    paths: defaultdict[str, list[str]] = defaultdict(list)
    try:
        with open(CACHE, "rb") as file:
            content = file.read()
    except OSError:
        return paths
    content = content[max(0, content.find(CACHE_MAGIC)) :]  # an older format may stand before it

    def text(offset: int) -> str:
        return content[offset : content.index(b"\0", offset)].decode()

    (count,) = struct.unpack_from("<I", content, len(CACHE_MAGIC))
    entries = content[CACHE_HEADER_BYTES : CACHE_HEADER_BYTES + count * CACHE_ENTRY.size]
    for _, name, path, _, _ in CACHE_ENTRY.iter_unpack(entries):
        paths[text(name)].append(text(path))
    return paths
