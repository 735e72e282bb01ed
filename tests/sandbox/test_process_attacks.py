"""Calls of a `Process` that hostile input has taken over: what they can read, reach, start and reply."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlframe.sandbox import process_child
from rlframe.sandbox.process import CallFailed, Process, ProcessDied

# Raises ValueError where an attack works.
ATTEMPT = """
import ctypes, os, socket
libc = ctypes.CDLL(None, use_errno=True)
def syscall(*numbers):
    if libc.syscall(*map(ctypes.c_long, numbers)) < 0:
        raise OSError(ctypes.get_errno(), 'denied')
try:
    {attack}
    raise ValueError('through')
except OSError as error:
    assert error.errno in (1, 13), error  # EPERM of seccomp, EACCES of Landlock
"""
ATTACKS = {
    "reads /etc/passwd": "open('/etc/passwd')",
    "reads a secret of the same user": "open('{folder}/token')",
    "lists the secret's folder": "os.listdir('{folder}')",
    "reads its environment": "open('/proc/self/environ')",
    "reads the parent's environment": "open('/proc/{parent}/environ')",
    "reads the nursery's environment": "open(f'/proc/{{os.getppid()}}/environ')",
    "reads its memory map": "open('/proc/self/maps')",
    "reads the project": "os.listdir('{project}')",
    "reads a home": "os.listdir('{home}')",
    "writes /tmp": "open('/tmp/rlframe_probe', 'w')",
    "writes beside a secret": "open('{folder}/new', 'w')",
    "writes a file in memory": "os.memfd_create('x')",
    "writes to its own package": "open('{package}/process.py', 'a')",
    "empties its own package": "os.open('{package}/__init__.py', os.O_RDONLY | os.O_TRUNC)",
    "removes a file": "os.unlink('{folder}/token')",
    "makes a folder": "os.mkdir('/tmp/rlframe_probe')",
    "connects by TCP": "socket.create_connection(('127.0.0.1', {port}))",
    "connects by IPv6": "socket.socket(socket.AF_INET6)",
    "sends UDP": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
    "makes a Unix socket": "socket.socket(socket.AF_UNIX)",
    "makes a socket pair": "socket.socketpair()",
    "forks": "os.fork() or os._exit(0)",
    "starts a thread": "syscall(56, 0x3d0f00, 0, 0, 0, 0)",
    "executes a program": "os.execv('/bin/true', ['true'])",
    "starts a shell": "__import__('subprocess').run(['/bin/true'])",
    "signals the parent": "os.kill({parent}, 0)",
    "signals the nursery": "os.kill(os.getppid(), 9)",
    "signals everybody": "os.kill(-1, 9)",
    "signals itself": "os.kill(os.getpid(), 0)",
    "traces the parent": "syscall(101, 16, {parent}, 0, 0)",
    "traces the nursery": "syscall(101, 16, os.getppid(), 0, 0)",
    "reads the parent's memory": "syscall(310, {parent}, 0, 0, 0, 0, 0)",
    "makes a namespace": "syscall(272, 0x10000000)",
    "raises its limits": "syscall(302, 0, 9, 1, 0)",
    "uses io_uring": "syscall(425, 8, 0)",
    "becomes another user": "os.setuid(12345)",
    "changes a priority": "os.nice(1)",
}


@pytest.fixture(scope="module")
def child() -> Iterator[Process]:
    child = Process("builtins:exec", warm_up=[""], max_memory_bytes=2**30)
    yield child
    child.close()


@pytest.mark.parametrize("name", ATTACKS)
def test_a_call_reaches_nothing_but_the_python_library(child: Process, name: str, tmp_path: Path):
    (tmp_path / "token").write_text("secret")
    package = Path(process_child.__file__).parent
    values = {"folder": tmp_path, "parent": os.getpid(), "package": package, "project": package.parents[1]}
    values["home"] = Path.home()
    with socket.create_server(("127.0.0.1", 0)) as server:
        attack = ATTACKS[name].format(port=server.getsockname()[1], **values)
        child.call(ATTEMPT.format(attack=attack), {}, timeout_s=5)
    assert (tmp_path / "token").read_text() == "secret"
    assert not Path("/tmp/rlframe_probe").exists()


def test_an_attack_that_works_would_be_noticed(child: Process):
    with pytest.raises(CallFailed, match="ValueError: through"):
        child.call(ATTEMPT.format(attack="open(os.__file__)"), {}, timeout_s=5)


def test_a_call_sees_no_variable_of_the_parents_environment(child: Process, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RLFRAME_TEST_SECRET", "secret")
    reader = Process("builtins:eval", warm_up=["0"], max_memory_bytes=2**30)
    names = reader.call("sorted(__import__('os').environ)", timeout_s=5)
    assert set(names) <= {"LC_CTYPE", "LD_LIBRARY_PATH", "OPENBLAS_NUM_THREADS"}  # LC_CTYPE: Python itself sets it
    reader.close()


def test_a_call_imports_from_the_library_site_packages_and_rlframe_alone(monkeypatch: pytest.MonkeyPatch, tmp_path):
    (tmp_path / "planted.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    reader = Process("builtins:exec", warm_up=[""], max_memory_bytes=2**30)
    with pytest.raises(CallFailed, match="No module named 'planted'"):
        reader.call("import sympy, rlframe.answers, planted", {}, timeout_s=5)
    reader.close()


def test_a_call_has_no_descriptor_of_a_file_or_of_the_nursery(child: Process):
    code = "import os\nopen_ones = []\nfor n in range(64):\n  try: os.fstat(n); open_ones.append(n)\n"
    code += "  except OSError: pass\nassert len(open_ones) == 4, open_ones"  # null as 0, 1 and 2, and its own socket
    child.call(code, {}, timeout_s=5)


WRITE = """
import os, stat
[channel] = [n for n in range(3, 64) if stat.S_ISSOCK(stat_of(n).st_mode)]
os.write(channel, {reply})
"""
HELPER = "import os\ndef stat_of(n):\n  try: return os.fstat(n)\n  except OSError: return os.fstat(0)\n"


@pytest.mark.parametrize(
    "reply",
    [
        "__import__('pickle').dumps(__import__('fractions').Fraction(1, 3))",
        "b'not JSON'",
        "b'[]'",
        "b'null'",
        "b'{}'",
        "b'[' * 100_000",
        "b'\\xff' * 200_000",
    ],
)
def test_a_reply_that_is_none_replaces_the_worker_and_is_named(child: Process, reply: str):
    with pytest.raises(ProcessDied, match="after a reply that is none"):
        child.call(HELPER + WRITE.format(reply=reply), {}, timeout_s=5)
    child.call("assert 2 + 3 == 5", {}, timeout_s=5)


def test_a_second_reply_is_never_taken_for_the_next_calls(child: Process):
    forged = """b'{"result": "forged", "error": null}'"""
    assert child.call(HELPER + WRITE.format(reply=forged), {}, timeout_s=5) == "forged"
    assert child.call("pass", {}, timeout_s=5) is None


def test_output_of_a_call_reaches_no_terminal(capfd: pytest.CaptureFixture[str]):
    child = Process("builtins:exec", warm_up=[""], max_memory_bytes=2**30)
    child.call("import os; os.write(1, b'\\x1b[31m'); os.write(2, b'\\x1b[31m')", {}, timeout_s=5)
    child.close()
    assert capfd.readouterr() == ("", "")


def test_the_worker_of_the_math_reward_is_under_landlock():
    from rlframe.reward.math import Math

    math = Math(name="math", weight=1.0, extract=["boxed"], timeout_s=5.0, max_answer_chars=2000)
    assert math.facts() == {}
    math.check(r"\sqrt{8}")
    assert math.facts() == {"isolation": 1.0}
    math.close()


def test_without_landlock_a_worker_still_writes_and_connects_nowhere(tmp_path: Path):
    """Reading stays possible there: the fact `isolation` is then 0."""
    program = f"""
import os, socket
from rlframe.sandbox import process_child
process_child.landlock_abi = lambda: 0
confinement, filter = process_child.confine([])
filter.install()
assert confinement == "seccomp"
for attack in (lambda: open({str(tmp_path / "new")!r}, "w"), lambda: socket.socket(), lambda: os.fork()):
    try:
        attack()
        print("through")
    except OSError:
        pass
print(open("/etc/passwd").read(4))
"""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=env, check=True)
    assert done.stdout.splitlines() == ["root"]
