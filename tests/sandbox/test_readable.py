"""Only the standard library can be read and imported, and no other process's files, at each level of isolation."""

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from rlframe.sandbox import Limits, Program, Sandbox
from rlframe.sandbox.levels import PYTHON, readable_paths
from rlframe.sandbox.libraries import shared_libraries

LIMITS = Limits(case_s=20.0, program_s=20.0, memory_mib=512, output_bytes=100_000)
BASE = {"base": sys.base_prefix, "platbase": sys.base_exec_prefix}
STANDARD_LIBRARY = sysconfig.get_path("stdlib", vars=BASE)

IMPORT_ALL = """
import json, sys, warnings
warnings.simplefilter("ignore")
errors = {}
for name in sorted(sys.stdlib_module_names - {"antigravity", "this", "idlelib"}):
    try:
        __import__(name)
    except ImportError as error:
        errors[name] = type(error).__name__
print(json.dumps(errors))
"""
# Opens each descriptor of each process that may be near: the server, its runners, whatever runs beside them.
OPEN_PIPES_OF_OTHERS = """
import os
own, server = os.getpid(), os.getppid()
opened = []
for process in sorted({1, server, *range(server - 5, server + 5), *range(max(1, own - 20), own + 20)} - {own}):
    for entry in [f"fd/{number}" for number in range(64)] + ["environ", "maps", "mem", "root", "cwd"]:
        try:
            os.close(os.open(f"/proc/{process}/{entry}", os.O_RDONLY | os.O_NONBLOCK))
            opened.append((process - server, entry))
        except OSError:
            pass
print(opened)
"""


def printed(sandbox: Sandbox, source: str) -> str:
    [outcome] = sandbox.run(Program(source=source, function=None, inputs=[""]))
    assert outcome.status == "returned", outcome
    return outcome.output.decode().strip()


def test_every_standard_module_imports_as_in_a_bare_interpreter(sandbox: Sandbox):
    bare = subprocess.run([PYTHON, "-I", "-S", "-c", IMPORT_ALL], capture_output=True, check=True)
    assert json.loads(printed(sandbox, IMPORT_ALL)) == json.loads(bare.stdout)


def test_imports_work_after_the_import_system_forgot_its_lists(sandbox: Sandbox):
    source = (
        "import importlib; importlib.invalidate_caches()\nimport statistics, xml.dom.minidom, sqlite3, turtledemo\n"
    )
    assert printed(sandbox, source + "print(statistics.mean([1, 2]))") == "1.5"


@pytest.mark.parametrize("name", ["site-packages", "dist-packages"])
def test_no_package_beside_the_standard_library_is_readable(sandbox: Sandbox, name: str):
    folders = [f"{STANDARD_LIBRARY}/{name}", f"/usr/lib/python3/{name}", f"/usr/local/lib/python3/{name}"]
    folders += [str(folder) for folder in Path("/usr/local/lib").glob(f"python3*/{name}")]
    folders = [folder for folder in folders if Path(folder).is_dir() and any(Path(folder).iterdir())]
    if not folders:
        pytest.skip(f"this machine has no {name} outside the virtual environment")
    files = [str(next(Path(folder).rglob("*.py"), folder)) for folder in folders]
    modules = [path.name for folder in folders for path in Path(folder).iterdir() if (path / "__init__.py").exists()]
    source = (
        f"import os, sys\nsys.path += {folders}\nfound = []\n"
        f"for path in {folders} + {files}:\n"
        "    for read in (os.listdir, open):\n"
        "        try: found.append((path, str(read(path))))\n"
        "        except OSError: pass\n"
        f"for name in {modules}:\n    try: found.append(__import__(name))\n    except ImportError: pass\n"
        "print(found)"
    )
    assert printed(sandbox, source) == "[]"


def test_a_program_reads_nothing_else_of_the_system(sandbox: Sandbox):
    paths = ["/usr/lib", "/lib", "/lib64", "/usr/lib/os-release", "/etc/os-release", "/usr/share", "/usr/bin", "/"]
    paths += [str(path) for path in Path("/usr/lib").glob("*/*") if not path.is_symlink()][:500]
    source = (
        f"import os\nfound = []\nfor path in {paths}:\n"
        "    try: found.append(os.listdir(path) if os.path.isdir(path) else open(path, 'rb').read(1))\n"
        "    except OSError: continue\n"
        "    found[-1] = path\nprint(*found)"
    )
    readable = {os.path.realpath(path) for path in readable_paths()}
    surplus = {path for path in map(os.path.realpath, printed(sandbox, source).split()) if path not in readable}
    assert {path for path in surplus if not path.startswith("/usr/lib/locale/")} == set()


def test_no_pipe_of_the_server_or_another_runner_can_be_opened(sandbox: Sandbox):
    assert printed(sandbox, OPEN_PIPES_OF_OTHERS) == "[]"


def test_the_libraries_are_those_that_the_loader_finds():
    modules = sorted(str(path) for path in Path(STANDARD_LIBRARY, "lib-dynload").glob("*.so"))
    found = {os.path.realpath(path) for path in shared_libraries((PYTHON, *modules))}
    for module in (PYTHON, *modules):
        listed = subprocess.run(["ldd", module], capture_output=True, text=True, check=True).stdout
        needed = {os.path.realpath(word) for word in listed.split() if word.startswith("/")}
        assert needed <= found, module
    assert len(found) >= 5
