"""The seccomp filters, interpreted as the kernel does, for both supported architectures."""

import struct

import pytest

from rlframe.sandbox import seccomp
from rlframe.sandbox.seccomp import ALLOW, ALLOWED, AUDIT_ARCH, CLONE, CLONE3, ENOSYS, EPERM, EXIT, KILL, NOTIFY

MACHINES = list(AUDIT_ARCH)


def verdict(program: bytes, architecture: int, number: int, *arguments: int) -> int:
    """The filter's result for a system call: classic BPF over `struct seccomp_data`."""
    seccomp_data = struct.pack("IIQ6Q", number, architecture, 0, *(*arguments, 0, 0, 0, 0, 0, 0)[:6])
    instructions = list(struct.iter_unpack("HBBI", program))
    index = accumulator = 0
    while True:
        code, yes, no, operand = instructions[index]
        index += 1
        if code == seccomp.LOAD:
            (accumulator,) = struct.unpack_from("I", seccomp_data, operand)
        elif code == seccomp.RETURN:
            return operand
        else:
            condition = {
                seccomp.EQUAL: accumulator == operand,
                seccomp.AT_LEAST: accumulator >= operand,
                seccomp.ANY_BIT: accumulator & operand != 0,
            }[code]
            index += yes if condition else no


@pytest.mark.parametrize("machine", MACHINES)
def test_exactly_the_listed_calls_are_allowed_whatever_their_arguments(machine: str):
    program, column = seccomp.build(machine), MACHINES.index(machine)
    allowed = {numbers[column] for numbers in (*ALLOWED.values(), EXIT)}
    checked = {getattr(seccomp, name)[column] for name in CHECKED}
    for number in set(range(1000)) - checked:
        for argument in (0, 1, 0x10000, 0xFFFFFFFF):
            expected = ALLOW if number in allowed else ENOSYS if number == CLONE3[column] else EPERM
            assert verdict(program, AUDIT_ARCH[machine], number, *[argument] * 6) == expected, number


CHECKED = {  # name of a call -> arguments that the filter allows, arguments that it refuses
    "CLONE": ([(0x3D0F00,)], [(17,), (0x10000000 | 0x3D0F00,), (0x4100,)]),
    "OPEN": ([(0, 0), (0, 0o2000000)], [(0, 1), (0, 2), (0, 0o100), (0, 0o1000)]),
    "OPENAT": ([(0, 0, 0o2000000)], [(0, 0, 1), (0, 0, 2), (0, 0, 0o100), (0, 0, 0o1000)]),
    "FCNTL": ([(3, 1), (3, 1030)], [(3, 4), (3, 8), (3, 1031), (3, 1033)]),
    "IOCTL": ([(1, 0x5401)], [(1, 0x5412), (1, 0)]),
    "PRLIMIT64": ([(0, 9, 0), (0, 3, 1)], [(1, 9, 0), (0, 9, 1), (0, 9, 1 << 32), (1, 3, 1), (0, 0, 1)]),
}


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", CHECKED)
def test_a_checked_call_is_allowed_or_refused_by_its_arguments(machine: str, name: str):
    program, number = seccomp.build(machine), getattr(seccomp, name)[MACHINES.index(machine)]
    if number is None:
        pytest.skip(f"{machine} has no such call")
    allowed, refused = CHECKED[name]
    assert {verdict(program, AUDIT_ARCH[machine], number, *arguments) for arguments in allowed} == {ALLOW}
    assert {verdict(program, AUDIT_ARCH[machine], number, *arguments) for arguments in refused} == {EPERM}


@pytest.mark.parametrize("machine", MACHINES)
def test_a_call_of_another_instruction_set_kills_the_program(machine: str):
    program = seccomp.build(machine)
    assert verdict(program, 0x40000003, 1) == KILL  # i386's exit
    if machine == "x86_64":
        assert verdict(program, AUDIT_ARCH[machine], 0x40000000) == KILL  # x32's read


@pytest.mark.parametrize("machine", MACHINES)
def test_every_thread_start_and_thread_end_notifies_the_server(machine: str):
    program, column = seccomp.build_notifier(machine), MACHINES.index(machine)
    architecture = AUDIT_ARCH[machine]
    for flags in (0x10000, 0x10900, 0x3D0F00, 0xFFFFFFFF, (1 << 40) | 0x10000):
        assert verdict(program, architecture, CLONE[column], flags) == NOTIFY
    assert verdict(program, architecture, EXIT[column]) == NOTIFY
    verdicts = [verdict(program, architecture, number, 17) for number in range(1000) if number != EXIT[column]]
    assert set(verdicts) == {ALLOW}


@pytest.mark.parametrize("machine", MACHINES)
def test_a_filter_without_threads_refuses_every_clone(machine: str):
    program, number = seccomp.build(machine, threads=False), CLONE[MACHINES.index(machine)]
    assert {verdict(program, AUDIT_ARCH[machine], number, flags) for flags in (0, 17, 0x10000, 0x3D0F00)} == {EPERM}
