"""Programs that try to escape from the sandbox, and completions that try to stall the parser."""

import sys
import sysconfig
import time
from pathlib import Path

import pytest

from rlframe.reward.code import program_of
from rlframe.sandbox import Limits, Outcome, Program, Sandbox
from rlframe.sandbox.levels import readable_paths
from tests.tiny.attacks import CALL, PROBES, probe_values

LIMITS = Limits(case_s=5.0, program_s=5.0, memory_mib=256, output_bytes=4096)

# Prints the errno with which `call` fails; 0 where the call works.
ATTEMPT = """
import os
try:
    {call}
    print(0)
except OSError as error:
    print(error.errno)
"""
EPERM = "1"  # the error of seccomp; Landlock fails with 13, EACCES


def run(sandbox: Sandbox, call: str) -> Outcome:
    [outcome] = sandbox.run(Program(source=ATTEMPT.format(call=call), function=None, inputs=[""]))
    return outcome


def test_a_program_reads_no_virtual_environment(sandbox: Sandbox) -> None:
    outcome = run(sandbox, f"os.listdir({sysconfig.get_path('purelib')!r})")
    assert outcome.status == "returned", outcome.detail
    assert outcome.output.decode().strip() != "0"


def test_no_readable_path_is_inside_a_virtual_environment() -> None:
    assert sys.prefix != sys.base_prefix, "the tests run in a virtual environment"
    assert not [path for path in readable_paths() if path.startswith(sys.prefix)]


@pytest.mark.parametrize("flags", ["O_RDONLY | os.O_TRUNC", "O_RDONLY | os.O_CREAT", "O_WRONLY", "O_RDWR"])
def test_seccomp_alone_refuses_to_open_for_writing(sandbox: Sandbox, flags: str) -> None:
    # Before ABI 3, Landlock lets a program empty a file by O_RDONLY | O_TRUNC.
    assert run(sandbox, f"os.open(os.__file__, os.{flags})").output.decode().strip() == EPERM


def test_seccomp_refuses_the_older_call_open_too(sandbox: Sandbox) -> None:
    syscall = "import ctypes; libc = ctypes.CDLL(None, use_errno=True)"
    call = "libc.syscall(2, os.__file__.encode(), os.O_TRUNC)"
    outcome = run(sandbox, f"{syscall}; {call}; raise OSError(ctypes.get_errno(), '')")
    assert outcome.output.decode().strip() == ("1" if sysconfig.get_platform() == "linux-x86_64" else "38")


def test_a_program_cannot_read_a_link(sandbox: Sandbox) -> None:
    assert run(sandbox, "os.readlink('/proc/self/exe')").output.decode().strip() == EPERM


def test_a_program_reads_the_standard_library(sandbox: Sandbox) -> None:
    assert run(sandbox, "import decimal, fractions; open(os.__file__).read()").output.decode().strip() == "0"


def test_every_attack_on_files_network_and_processes_is_refused(sandbox: Sandbox, tmp_path: Path):
    """Each probe is a program of its own, so that a probe that ends its program hides no other result."""
    values = probe_values(tmp_path)
    assert len(PROBES) >= 45
    successes = []
    for name, probe in PROBES.items():
        attempt = f"try:\n    {probe.format(**values)}\n    print('through')"
        source = f"{CALL}\n{attempt}\nexcept (OSError, ValueError) as error:\n    print('refused', error)"
        [outcome] = sandbox.run(Program(source=source, function=None, inputs=[""]))
        if not outcome.output.startswith(b"refused"):
            successes.append((name, outcome))
    assert successes == []
    assert not list(Path("/tmp").glob("rlframe_probe")) and not list(Path("/dev/shm").glob("rlframe_probe"))


def test_a_fence_before_endless_spaces_is_parsed_in_linear_time() -> None:
    start = time.process_time()
    assert program_of("```" + " " * 200_000 + "x") is None
    assert time.process_time() - start < 5  # a quadratic reader takes minutes


@pytest.mark.parametrize("fence", ["", "python", "py ", " Python3 \t"])
def test_every_spelling_of_python_opens_a_code_block(fence: str) -> None:
    assert program_of(f"```{fence}\nx = 1\n```") == "x = 1\n"
