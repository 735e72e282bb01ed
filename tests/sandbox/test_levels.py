"""A program finds the same surroundings at every level of isolation, so its verdict does not depend on the machine."""

from collections.abc import Iterator

import pytest

from rlframe.sandbox import Limits, Program, Sandbox
from rlframe.sandbox import sandbox as module
from rlframe.sandbox.levels import ISOLATIONS, PYTHON

LIMITS = Limits(case_s=5.0, program_s=20.0, memory_mib=256, output_bytes=100_000)

# Each program prints its expression, or the type of the error.
EXPRESSIONS = {
    "folder": "os.getcwd(), os.path.exists('input.txt'), os.path.exists('/'), os.path.isdir('.')",
    "listing of the root": "os.listdir('/')",
    "listing of the folder": "os.listdir()",
    "listing of /tmp": "os.listdir('/tmp')",
    "listing of /proc": "os.listdir('/proc')",
    "listing of /dev": "os.listdir('/dev')",
    "folders that scripts look for": (
        "[os.path.exists(p) for p in ('/tmp', '/proc', '/dev', '/dev/stdin', '/dev/null')]"
    ),
    "/dev/stdin": "open('/dev/stdin').read()",
    "/dev/fd/0": "open('/dev/fd/0').read()",
    "/proc/self/fd/0": "open('/proc/self/fd/0').read()",
    "/dev/stdout": "open('/dev/stdout', 'w').write('x')",
    "/dev/null": "open('/dev/null', 'w').write('x'), open('/dev/null').read()",
    "/dev/urandom": "refused('/dev/urandom')",
    "/proc/self/status": "refused('/proc/self/status')",
    "/proc/meminfo": "refused('/proc/meminfo')",
    "a file that is nowhere": "open('input.txt').read()",
    "a new file": "open('output.txt', 'w')",
    "a file in /tmp": "open('/tmp/output.txt', 'w')",
    "a temporary file": "__import__('tempfile').TemporaryFile()",
    "environment": "dict(os.environ), dict(os.environb), os.path.expanduser('~')",
    "time zone": "time.tzname, time.timezone, time.localtime(0).tm_hour, datetime.datetime.fromtimestamp(0)",
    "named time zone": (
        "datetime.datetime(2024, 7, 1, tzinfo=__import__('zoneinfo').ZoneInfo('Asia/Tokyo')).utcoffset()"
    ),
    "locale": "locale.setlocale(locale.LC_ALL, ''), locale.localeconv()['thousands_sep'], locale.getlocale()",
    "named locale": "locale.setlocale(locale.LC_ALL, 'C.UTF-8')",
    "encodings": (
        "sys.getdefaultencoding(), sys.getfilesystemencoding(), locale.getpreferredencoding(), sys.stdin.encoding"
    ),
    "flags": "sys.flags, sys.argv, sys.path, sys.executable, sys.getrecursionlimit(), sys.dont_write_bytecode",
    "modules": "sorted(sys.modules)",
    "cores": "os.cpu_count(), len(os.sched_getaffinity(0))",
    "ids": "os.getuid(), os.geteuid(), os.getgid(), os.getegid()",
    "groups": "os.getgroups()",
    "mask": "os.umask(0)",
    "limits": "[resource.getrlimit(n) for n in range(16)]",
    "host": "platform.system(), platform.machine(), platform.python_version()",
    "descriptors": "[n for n in range(64) if descriptor(n)]",
    "kinds of streams": (
        "[stat.S_IFMT(os.fstat(n).st_mode) for n in range(3)], os.fstat(0).st_size, sys.stdin.isatty()"
    ),
    "a process": "os.fork()",
    "a pipe": "os.pipe()",
    "a socket": "socket.socket()",
    "a pool of processes": "__import__('multiprocessing').Pool(2)",
    "an executor of processes": (
        "__import__('concurrent.futures').futures.ProcessPoolExecutor(2).submit(abs, 1).result()"
    ),
    "a thread": "__import__('concurrent.futures').futures.ThreadPoolExecutor(2).submit(abs, -1).result()",
    "an event loop": "__import__('asyncio').run(__import__('asyncio').sleep(0))",
    "shared memory": "__import__('multiprocessing.shared_memory').shared_memory.SharedMemory(create=True, size=9)",
    "a user": "__import__('pwd').getpwuid(0), __import__('getpass').getuser()",
    "a host name": "socket.gethostbyname('localhost')",
    "a signal": (
        "signal.signal(signal.SIGTERM, signal.SIG_IGN), signal.getsignal(signal.SIGINT), signal.raise_signal(15)"
    ),
    "priority": "os.nice(0), os.getpriority(0, 0)",
}
SOURCE = """
import datetime, locale, os, platform, resource, signal, socket, stat, sys, time
def refused(path):  # by an error that depends on the level: the file is hidden, or cannot be opened
    try: open(path, "rb")
    except OSError: return True
def descriptor(number):
    try: return bool(os.fstat(number))
    except OSError: return False
try: print({expression})
except Exception as error: print(type(error).__name__, getattr(error, "errno", None))
"""


@pytest.fixture(scope="module")
def sandboxes() -> Iterator[list[Sandbox]]:
    sandboxes = []
    for level in ISOLATIONS:
        sandbox = Sandbox(LIMITS, "landlock")
        sandbox._server, sandbox.level = module._start_tested_server(level), level
        sandboxes.append(sandbox)
    yield sandboxes
    for sandbox in sandboxes:
        sandbox.close()


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_a_program_prints_the_same_at_every_level(sandboxes: list[Sandbox], name: str):
    program = Program(source=SOURCE.format(expression=EXPRESSIONS[name]), function=None, inputs=["3 4\n"])
    [first, *others] = [outcome for sandbox in sandboxes for outcome in sandbox.run(program)]
    assert first.status == "returned", first
    assert {(outcome.status, outcome.output) for outcome in others} == {(first.status, first.output)}


def test_the_interpreter_and_its_folder_of_modules_have_one_name(sandboxes: list[Sandbox]):
    program = Program(source="import os, sys; print(sys.executable, os.__file__)", function=None, inputs=[""])
    for sandbox in sandboxes:
        [outcome] = sandbox.run(program)
        assert outcome.output.decode().split()[0] == PYTHON
