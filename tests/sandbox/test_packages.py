"""Programs import the packages that a run asks for, from a folder that is filled once from wheels, at each level."""

import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version
from pathlib import Path

import pytest

from rlframe.sandbox import Cells, Limits, Outcome, Program, Sandbox, SandboxUnavailable
from rlframe.sandbox import sandbox as module
from rlframe.sandbox.failures import PackagesUnavailable
from rlframe.sandbox.levels import ISOLATIONS
from rlframe.sandbox.packages import Packages
from tests.tiny.attacks import CALL, PROBES, probe_values

LIMITS = Limits(case_s=10.0, program_s=20.0, memory_mib=512, output_bytes=4096)


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    """numpy and sympy, of this environment's versions."""
    requirements = [f"{name}=={version(name)}" for name in ("numpy", "sympy")]
    packages = Packages(requirements, str(tmp_path_factory.mktemp("packages")))
    packages.install()
    return packages


@pytest.fixture(scope="module", params=ISOLATIONS)
def sandbox(request: pytest.FixtureRequest, packages: Packages) -> Iterator[Sandbox]:
    sandbox = Sandbox(LIMITS, "landlock", packages)
    sandbox._server, sandbox.level = module._start_tested_server(request.param, packages), request.param
    yield sandbox
    sandbox.close()


def run(sandbox: Sandbox, source: str) -> Outcome:
    [outcome] = sandbox.run(Program(source=source, function=None, inputs=[""]))
    return outcome


RIGHT = {
    "an inverse": (
        "import numpy as np\nprint(np.linalg.inv(np.array([[2., 1.], [1., 1.]])).tolist())",
        "[[1.0, -1.0], [-1.0, 2.0]]",
    ),
    "a large product": (
        "import numpy as np\nones = np.ones((400, 400))\nprint(float((ones @ ones).sum()))",
        "64000000.0",
    ),
    "a Fourier transform": (
        "import numpy as np\nprint(np.fft.fft([1, 0, 0]).real.tolist())",
        "[1.0, 1.0, 1.0]",
    ),
    "random numbers": ("import numpy as np\nprint(np.random.default_rng().random((3, 2)).shape)", "(3, 2)"),
    "an integral": (
        "from sympy import *\nx = symbols('x')\nprint(integrate(exp(-x**2), (x, -oo, oo)))",
        "sqrt(pi)",
    ),
    "a solution": ("from sympy import *\nx = symbols('x')\nprint(solve(x**2 - 5*x + 6, x))", "[2, 3]"),
    "sympy in numpy": (
        "import numpy\nfrom sympy import *\nx = symbols('x')\nprint(lambdify(x, x**2)(numpy.arange(3)).tolist())",
        "[0, 1, 4]",
    ),
    "a dependency": ("import mpmath\nprint(mpmath.mpf(1) / 4)", "0.25"),
    "a version": ("from importlib.metadata import version\nprint(version('sympy') >= '1')", "True"),
    "a single thread": ("import numpy, threading\nprint(threading.active_count())", "1"),
    "the end of the path": ("import numpy, os, sys\nprint(os.path.dirname(numpy.__path__[0]) == sys.path[-1])", "True"),
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_program_computes_with_packages(sandbox: Sandbox, name: str) -> None:
    source, printed = RIGHT[name]
    outcome = run(sandbox, source)
    assert (outcome.status, outcome.output.decode()) == ("returned", f"{printed}\n"), outcome


def test_cells_use_packages(sandbox: Sandbox) -> None:
    with Cells(sandbox, max_cells=2) as cells:
        cells.run("import numpy as np\nx = np.arange(4)")
        assert cells.run("x.sum()").value == "np.int64(6)"


def test_with_packages_every_attack_is_still_refused(sandbox: Sandbox, tmp_path: Path) -> None:
    values, successes = probe_values(tmp_path), []
    writes = {"a package": "open(__import__('numpy').__file__, 'a')", "beside it": "open('{cache}/x', 'w')"}
    values["cache"] = sandbox.packages.folder if sandbox.packages else None
    for name, probe in (PROBES | writes).items():
        attempt = f"try:\n    {probe.format(**values)}\n    print('through')"
        outcome = run(
            sandbox, f"{CALL}\n{attempt}\nexcept (OSError, ValueError) as error:\n    print('refused', error)"
        )
        if not outcome.output.startswith(b"refused"):
            successes.append((name, outcome))
    assert successes == []


def test_other_packages_of_this_environment_stay_out_of_reach(sandbox: Sandbox) -> None:
    for name in ("pytest", "torch"):
        assert "ModuleNotFoundError" in run(sandbox, f"import {name}").detail


def test_too_little_memory_for_the_packages_is_refused(packages: Packages) -> None:
    limits = Limits(case_s=10.0, program_s=20.0, memory_mib=128, output_bytes=4096)
    with pytest.raises(PackagesUnavailable, match=r"numpy and sympy: raised: [\s\S]*memory_mib=128 must hold"):
        Sandbox(limits, "landlock", packages).start()


def test_four_processes_install_at_a_time_and_all_find_the_folder(tmp_path: Path) -> None:
    script = (
        "import sys; from rlframe.sandbox.packages import Packages\n"
        "packages = Packages(['mpmath'], sys.argv[1]); packages.install(); print(packages.modules())"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert [process.communicate()[0] for process in processes] == ["['mpmath']\n"] * 4
    assert [path.suffix for path in sorted(tmp_path.iterdir())] == ["", ".lock"]


@pytest.mark.parametrize("requirement", ["", "./numpy", "a @ https://b.c", "-e .", "--pre", "numpy sympy", "numpy; x"])
def test_only_names_with_versions_are_requirements(requirement: str) -> None:
    with pytest.raises(ValueError, match="is no package with versions"):
        Packages([requirement], None)


def test_the_folder_depends_on_the_set_of_requirements_and_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    folder = Packages(["numpy >=2, <3", "sympy"], None).folder
    assert folder.parent == Path("/somewhere/rlframe/packages")
    assert folder == Packages(["sympy", "numpy>=2,<3"], None).folder
    assert folder != Packages(["sympy", "numpy>=2"], None).folder
    assert Packages(["sympy"], "/shared").folder.parent == Path("/shared")


def test_without_a_wheel_nothing_is_built_and_the_error_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The only source of packages is a folder with a source archive, whose build script would write a file."""
    archives, cache, mark = tmp_path / "archives", tmp_path / "cache", tmp_path / "built"
    archives.mkdir()
    with zipfile.ZipFile(archives / "tiny-1.0.zip", "w") as archive:
        archive.writestr(
            "tiny-1.0/setup.py", f"open({str(mark)!r}, 'w')\nfrom setuptools import setup; setup(name='tiny')"
        )
        archive.writestr("tiny-1.0/PKG-INFO", "Metadata-Version: 1.0\nName: tiny\nVersion: 1.0\n")
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(archives), "PIP_CONFIG_FILE": "/dev/null"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(PackagesUnavailable) as failure:
        Packages(["tiny"], str(cache)).install()
    message = str(failure.value)
    assert "No matching distribution found for tiny" in message
    assert "`rlframe packages --folder FOLDER tiny`" in message and "packages_folder" in message
    assert not mark.exists() and [path.suffix for path in cache.iterdir()] == [".lock"]


def wheel(folder: Path, name: str, source: str) -> None:
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{name}.py", source)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels, the only one that pip reads."""
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path), "PIP_CONFIG_FILE": "/dev/null"}.items():
        monkeypatch.setenv(name, value)
    return tmp_path


def test_a_package_that_cannot_be_imported_is_refused_with_the_reason(wheels: Path) -> None:
    wheel(wheels, "broken", "import missing_part")
    with pytest.raises(PackagesUnavailable, match=r"cannot use broken: raised: [\s\S]*No module named"):
        Sandbox(LIMITS, "landlock", Packages(["broken"], str(wheels / "cache"))).start()


def test_a_module_of_the_standard_library_comes_before_a_package(wheels: Path) -> None:
    wheel(wheels, "statistics", "mean = None")
    sandbox = Sandbox(LIMITS, "landlock", Packages(["statistics"], str(wheels / "cache")))
    assert run(sandbox, "import statistics; print(statistics.mean([1, 3]))").output == b"2\n"
    sandbox.close()


def test_an_installer_that_was_killed_leaves_no_trace_and_no_lock(wheels: Path) -> None:
    wheel(wheels, "tiny", "x = 1")
    packages = Packages(["tiny"], str(wheels / "cache"))
    dead = packages.cache / f"{packages.folder.name}.dead.tmp"
    dead.mkdir(parents=True)
    os.utime(dead, (0, 0))
    threads = [threading.Thread(target=packages.install) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {path.suffix for path in packages.cache.iterdir()} == {"", ".lock"} and packages.modules() == ["tiny"]


def test_a_package_that_starts_threads_when_it_is_imported_is_refused(wheels: Path) -> None:
    wheel(wheels, "threaded", "import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()")
    with pytest.raises(SandboxUnavailable, match="a package starts threads when it is imported"):
        Sandbox(LIMITS, "landlock", Packages(["threaded"], str(wheels / "cache"))).start()


def test_the_folder_of_another_machine_that_still_installs_is_kept(wheels: Path) -> None:
    wheel(wheels, "tiny", "x = 1")
    packages = Packages(["tiny"], str(wheels / "cache"))
    live = packages.cache / f"{packages.folder.name}.live.tmp"
    live.mkdir(parents=True)
    assert packages.install().is_dir() and live.is_dir()


def test_a_folder_is_named_after_this_python(tmp_path: Path) -> None:
    name = Packages(["tiny"], str(tmp_path)).folder.name
    assert name.startswith(f"{sys.implementation.cache_tag}-") and " " not in name


def test_a_folder_without_a_required_package_is_refused(wheels: Path) -> None:
    wheel(wheels, "tiny", "x = 1")
    packages = Packages(["tiny"], str(wheels / "cache"))
    packages.folder.mkdir(parents=True)
    with pytest.raises(PackagesUnavailable, match=r"lacks tiny\. Delete the folder, and retry"):
        packages.install()
    with pytest.raises(PackagesUnavailable, match="lacks tiny"):
        packages.check(Outcome(status="returned", output=b"", detail=""), memory_mib=512)


def test_a_copy_without_its_last_file_is_refused(wheels: Path) -> None:
    wheel(wheels, "tiny", "x = 1")
    packages = Packages(["tiny"], str(wheels / "cache"))
    (packages.install() / ".complete").unlink()
    with pytest.raises(PackagesUnavailable, match=r"is incomplete: it lacks the file \.complete"):
        packages.install()


def test_a_lock_that_is_a_link_is_refused_and_its_target_kept(wheels: Path) -> None:
    wheel(wheels, "tiny", "x = 1")
    packages = Packages(["tiny"], str(wheels / "cache"))
    packages.cache.mkdir()
    diary = wheels / "diary"
    diary.write_text("dear")
    (packages.cache / f"{packages.folder.name}.lock").symlink_to(diary)
    with pytest.raises(PackagesUnavailable, match="cannot be stored"):
        packages.install()
    assert diary.read_text() == "dear"


def test_a_cache_that_every_user_can_change_is_refused(wheels: Path) -> None:
    wheel(wheels, "tiny", "x = 1")
    packages = Packages(["tiny"], str(wheels / "cache"))
    packages.install()
    packages.cache.chmod(0o777)
    with pytest.raises(PackagesUnavailable, match=r"writable for all and has no sticky bit\. Run `chmod o-w"):
        packages.install()
    packages.cache.chmod(0o1777)
    assert packages.install() == packages.folder


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
def test_nothing_is_installed_in_the_folder_of_another_user(wheels: Path) -> None:
    wheel(wheels, "tiny", "x = 1")
    packages = Packages(["tiny"], str(wheels / "cache"))
    packages.cache.mkdir()
    os.chown(packages.cache, 12345, -1)
    with pytest.raises(PackagesUnavailable, match="belongs to the user 12345"):
        packages.install()
    os.chown(packages.cache, 0, -1)
    packages.install()
    os.chown(packages.cache, 12345, -1)
    assert packages.install() == packages.folder  # a colleague has filled it


def test_pips_errors_show_no_token_of_an_index(wheels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:  # it answers that it cannot do GET
        threading.Thread(target=server.serve_forever, daemon=True).start()
        link = f"http://127.0.0.1:{server.server_port}/tiny-1.0-py3-none-any.whl?token=hunter2"
        (wheels / "links.html").write_text(f'<a href="{link}">tiny-1.0-py3-none-any.whl</a>')
        for name, value in {"PIP_FIND_LINKS": str(wheels / "links.html"), "PIP_RETRIES": "0"}.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(PackagesUnavailable, match=r"whl\?token=\*\*\*") as failure:
            Packages(["tiny"], str(wheels / "cache")).install()
        server.shutdown()
    assert "hunter2" not in str(failure.value)
