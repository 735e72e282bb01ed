"""Disk work that never returns is abandoned at its bound; other work is waited for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlframe.errors import Stalled
from rlframe.record.bounded import within


def test_work_within_its_bound_gives_its_result_or_its_error() -> None:
    assert within(60, "add", lambda: 2 + 3) == 5
    with pytest.raises(ZeroDivisionError):
        within(60, "divide", lambda: 2 // 0)
    with pytest.raises(TimeoutError, match="the disk's own"):
        within(60, "read", lambda: (_ for _ in ()).throw(TimeoutError("the disk's own")))


def test_a_write_that_never_returns_is_abandoned_with_its_name(tmp_path: Path) -> None:
    os.mkfifo(dead := tmp_path / "dead")  # opening it for writing waits for a reader for ever
    with pytest.raises(Stalled, match=r"could not write dead within 0\.1 s: does the disk"):
        within(0.1, "write dead", lambda: dead.open("w").close())
    dead.open().close()  # frees the thread


SCRIPT = """
import os, sys
from rlframe.record.bounded import in_thread
in_thread("write", lambda: open(sys.argv[1], "w"))
print("ends")
"""


def test_a_thread_in_a_dead_write_does_not_keep_its_process(tmp_path: Path) -> None:
    os.mkfifo(dead := tmp_path / "dead")
    ended = subprocess.run([sys.executable, "-c", SCRIPT, str(dead)], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (0, "ends\n")
