"""Programs that try to get out of the sandbox, and texts that try to hold up who reads them."""

import sys
import sysconfig
import time
from collections.abc import Callable, Iterator

import pytest

from rlframe.reward.code import program_of
from rlframe.sandbox import Limits, Outcome, Program, Sandbox
from rlframe.sandbox import sandbox as trusted
from rlframe.sandbox.levels import ISOLATIONS, readable

LIMITS = Limits(case_s=5.0, program_s=5.0, memory_mib=256, output_bytes=4096)

# Prints the number of the error that `call` fails with; 0 where it works.
TRIED = """
import os
try:
    {call}
    print(0)
except OSError as error:
    print(error.errno)
"""
EPERM = "1"  # seccomp; Landlock says 13, EACCES


@pytest.fixture(scope="module", params=ISOLATIONS)
def run(request: pytest.FixtureRequest) -> Iterator[Callable[[str], Outcome]]:
    sandbox = Sandbox(LIMITS, "landlock")
    try:
        sandbox._server = trusted._tested(request.param)
    except (OSError, trusted.SandboxFailed) as error:
        pytest.skip(f"this machine has no {request.param}: {error}")
    yield lambda call: sandbox.run(Program(source=TRIED.format(call=call), function=None, inputs=[""]))[0]
    sandbox.close()


def test_a_program_reads_no_virtual_environment(run: Callable[[str], Outcome]) -> None:
    outcome = run(f"os.listdir({sysconfig.get_path('purelib')!r})")

    assert outcome.status == "returned", outcome.detail
    assert outcome.output.decode().strip() != "0"


def test_nothing_beneath_a_virtual_environment_is_offered() -> None:
    assert sys.prefix != sys.base_prefix, "the tests run in a virtual environment"
    assert not [path for path in readable() if path.startswith(sys.prefix)]


@pytest.mark.parametrize("flags", ["O_RDONLY | os.O_TRUNC", "O_RDONLY | os.O_CREAT", "O_WRONLY", "O_RDWR"])
def test_the_filter_alone_refuses_to_open_for_writing_where_an_old_landlock_lets_a_file_be_emptied(
    run: Callable[[str], Outcome], flags: str
) -> None:
    assert run(f"os.open(os.__file__, os.{flags})").output.decode().strip() == EPERM


def test_the_filter_refuses_it_by_the_call_open_too(run: Callable[[str], Outcome]) -> None:
    syscall = "import ctypes; libc = ctypes.CDLL(None, use_errno=True)"
    call = "libc.syscall(2, os.__file__.encode(), os.O_TRUNC)"
    outcome = run(f"{syscall}; {call}; raise OSError(ctypes.get_errno(), '')")

    assert outcome.output.decode().strip() == ("1" if sysconfig.get_platform() == "linux-x86_64" else "38")


def test_a_program_does_not_learn_where_links_lead(run: Callable[[str], Outcome]) -> None:
    assert run("os.readlink('/proc/self/exe')").output.decode().strip() == EPERM


def test_a_program_still_reads_its_library(run: Callable[[str], Outcome]) -> None:
    assert run("import decimal, fractions; open(os.__file__).read()").output.decode().strip() == "0"


def test_a_fence_before_endless_spaces_is_looked_at_in_a_moment() -> None:
    started = time.process_time()

    assert program_of("```" + " " * 200_000 + "x") is None
    assert time.process_time() - started < 1.0


@pytest.mark.parametrize("fence", ["", "python", "py ", " Python3 \t"])
def test_every_name_of_python_opens_a_block(fence: str) -> None:
    assert program_of(f"```{fence}\nx = 1\n```") == "x = 1\n"
