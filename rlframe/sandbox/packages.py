"""`Packages`: packages that programs may import, in a read-only folder beside the standard library.

The worker fills the folder by pip, outside the sandbox. Therefore pip may unpack wheels only: no build script runs. A
machine installs a set of packages once, for all workers and runs. Machines without a network share a folder that
`rlframe packages` has filled on another machine.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import Distribution, distributions
from pathlib import Path

from rlframe.errors import without_passwords
from rlframe.sandbox.failures import PackagesUnavailable
from rlframe.sandbox.program import Outcome

INSTALL_S = 600.0  # a download on a slow network; also bounds the wait for another process that installs
ABANDONED_S = 2 * INSTALL_S  # pip and compileall take at most INSTALL_S each, and change the folder when they end
LOCK_POLL_S = 0.2
PIP_LINES = 8  # of pip's output, in an error
STAMP = ".complete"  # the last file of an installation
FREE_MIB = 64  # a program needs some memory beside what its packages take of its bound
PYTHON = [sys.executable, "-P", "-m"]  # -P: no module of the working directory
# A name, extras and version specifiers (PEP 508). No path, no URL, no option of pip.
SPECIFIER = r"(?:~=|===?|!=|<=?|>=?)\s*[A-Za-z0-9.*+!_-]+"
REQUIREMENT = re.compile(
    rf"\s*([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[\sA-Za-z0-9,._-]*\])?\s*(?:{SPECIFIER}(?:\s*,\s*{SPECIFIER})*)?\s*"
)


class Packages:
    """A set of packages by pip's requirements, for this Python and this kind of machine.

    >>> packages = Packages(["sympy==1.14.0", "numpy"], cache=None)
    >>> packages.install()
    PosixPath('/home/me/.cache/rlframe/packages/cpython-311-7d0f4a9c1e22')
    >>> packages.modules()
    ['numpy', 'sympy']
    """

    def __init__(self, requirements: list[str], cache: str | None) -> None:
        """`cache`: the folder of all sets' folders; None: `rlframe/packages` in the user's cache. Raises ValueError for
        a requirement other than a name with versions."""
        self.names: set[str] = set()
        for requirement in requirements:
            match = REQUIREMENT.fullmatch(requirement)
            if match is None:
                raise ValueError(
                    f"{requirement!r} is no package with versions, such as numpy or numpy>=2,<3; paths, URLs, markers "
                    "and options of pip are refused"
                )
            self.names.add(_normalized(match[1]))
        self.requirements = sorted({re.sub(r"\s", "", requirement) for requirement in requirements})
        python, platform = sys.implementation.cache_tag, sysconfig.get_platform()
        digest = hashlib.sha256("\n".join([platform, *self.requirements]).encode()).hexdigest()[:12]
        self.cache = Path(cache).expanduser().absolute() if cache else _user_cache()
        self.folder = self.cache / f"{python}-{digest}"

    def install(self) -> Path:
        """Returns the folder, and fills a missing one first. Raises PackagesUnavailable."""
        try:
            if not self.folder.is_dir():
                self.cache.mkdir(mode=0o755, parents=True, exist_ok=True)
                self._refuse_foreign_cache()
                with self._lock():
                    if not self.folder.is_dir():
                        self._install()
            self._refuse_open_cache()
        except OSError as error:
            raise PackagesUnavailable(f"the packages of programs cannot be stored in {self.cache}: {error}") from error
        self._refuse_gaps()
        return self.folder

    def modules(self) -> list[str]:
        """Names to import, of the required packages without their dependencies."""
        return sorted({name for found in self._distributions().values() for name in _tops(found)})

    def probe(self) -> str:
        """A program that imports the required packages and needs some memory."""
        return "".join(f"import {name}\n" for name in self.modules()) + f"bytearray({FREE_MIB} << 20)"

    def check(self, outcome: Outcome, memory_mib: int) -> None:
        """Raises PackagesUnavailable if a package is missing, and unless the program `probe()` returned."""
        self._refuse_gaps()
        if outcome.status != "returned":
            raise PackagesUnavailable(
                f"programs cannot use {' and '.join(self.modules())}: {outcome.status}: {outcome.detail}\n"
                f"The packages are in {self.folder}; memory_mib={memory_mib} must hold them (numpy and sympy: 180 MiB) "
                f"and {FREE_MIB} MiB more."
            )

    def _distributions(self) -> dict[str, Distribution]:
        """The required packages in the folder, by name."""
        found = {_normalized(each.metadata["Name"]): each for each in distributions(path=[str(self.folder)])}
        return {name: found[name] for name in self.names & found.keys()}

    def _refuse_gaps(self) -> None:
        missing = sorted(self.names - self._distributions().keys())
        if missing or not (self.folder / STAMP).is_file():
            problem = f"lacks {' and '.join(missing)}" if missing else f"is incomplete: it lacks the file {STAMP}"
            raise PackagesUnavailable(
                f"the folder of programs' packages {self.folder} {problem}. Delete the folder, and retry: it is filled "
                "anew. If it is a copy, copy it again with all of its files."
            )

    def _refuse_open_cache(self) -> None:
        """Raises PackagesUnavailable where every user of the machine can replace the packages."""
        mode = self.cache.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise PackagesUnavailable(
                f"every user can replace the packages of programs in {self.cache}: it is writable for all and has no "
                f"sticky bit. Run `chmod o-w {shlex.quote(str(self.cache))}`, or name another folder."
            )

    def _refuse_foreign_cache(self) -> None:
        """Raises PackagesUnavailable where an installation would write into another user's folder."""
        self._refuse_open_cache()
        owner = self.cache.stat().st_uid
        if owner not in (0, os.geteuid()):
            raise PackagesUnavailable(
                f"the packages of programs cannot be installed in {self.cache}: it belongs to the user {owner}, and "
                f"this process runs as {os.geteuid()}. Let its owner run `rlframe packages`, or name a folder of your "
                "own."
            )

    def _install(self) -> None:
        """Fills the folder, which appears in a single step: no process sees a part of the packages."""
        for temporary in self.cache.glob(f"{self.folder.name}.*.tmp"):
            with suppress(FileNotFoundError):  # another machine on a shared file system has just finished
                if time.time() - temporary.stat().st_mtime > ABANDONED_S:  # its process was killed
                    shutil.rmtree(temporary, ignore_errors=True)
        temporary = tempfile.mkdtemp(prefix=f"{self.folder.name}.", suffix=".tmp", dir=self.cache)
        try:
            self._unpack_wheels(temporary)
            # Unchecked: the files never change, and a copy of the folder may lose their times.
            options = ["-q", "--invalidation-mode", "unchecked-hash", "-j", "0", temporary]
            with suppress(subprocess.TimeoutExpired):  # programs then compile what they import
                subprocess.run([*PYTHON, "compileall", *options], capture_output=True, timeout=INSTALL_S)
            Path(temporary, STAMP).touch()
            os.chmod(temporary, 0o755)
            try:
                os.rename(temporary, self.folder)
            except OSError:
                if not self.folder.is_dir():  # else another machine was faster, on a file system without common locks
                    raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _unpack_wheels(self, target: str) -> None:
        if importlib.util.find_spec("pip") is None:
            raise PackagesUnavailable(
                f"{sys.prefix} has no pip to install packages of programs: run `{sys.executable} -m ensurepip`"
            )
        options = ["--target", target, "--only-binary", ":all:", "--no-compile", "--no-input", "--quiet"]
        command = [*PYTHON, "pip", "install", *options, "--disable-pip-version-check", "--", *self.requirements]
        try:
            pip = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=INSTALL_S
            )
        except subprocess.TimeoutExpired:
            raise self._failure([f"pip took more than {INSTALL_S:g} s"]) from None
        if pip.returncode != 0:
            lines = [line.strip() for line in (pip.stdout + pip.stderr).splitlines() if line.strip()]
            raise self._failure([without_passwords(line) for line in lines[-PIP_LINES:]])

    def _failure(self, lines: list[str]) -> PackagesUnavailable:
        requirements = shlex.join(self.requirements)
        return PackagesUnavailable(
            "\n  ".join([f"pip cannot install the packages of programs, {requirements}, from wheels:", *lines])
            + f"\nName packages and versions that have wheels for Python {sys.version_info[0]}.{sys.version_info[1]}. "
            "Where workers have no network, fill a folder that they can read by "
            f"`rlframe packages --folder FOLDER {requirements}` on a machine like them with a network, and set the "
            "reward's packages_folder to it."
        )

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Lets one process install at a time. Raises PackagesUnavailable after a long wait."""
        path, deadline = self.cache / f"{self.folder.name}.lock", time.monotonic() + INSTALL_S
        # A link at this path may point to any file of this user: it is refused, and nothing is truncated.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(descriptor, "r+") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the kernel releases it when its holder ends
                    break
                except BlockingIOError as error:
                    if time.monotonic() >= deadline:
                        raise PackagesUnavailable(
                            f"another process has held {path} for {INSTALL_S:g} s: end the one that installs, and retry"
                        ) from error
                    time.sleep(LOCK_POLL_S)
            yield


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "rlframe" / "packages"


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _tops(distribution: Distribution) -> set[str]:
    """Names of a distribution's packages at the top; of its modules where it has no package."""
    files = distribution.files or []
    packages = {file.parts[0] for file in files if len(file.parts) == 2 and file.name == "__init__.py"}
    return packages or {file.stem for file in files if len(file.parts) == 1 and file.suffix == ".py"}
