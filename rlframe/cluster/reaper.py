"""The reaper of a local cluster: a process that kills what is left of a run once its driver has ended in any way.

After kill -9 of a driver, Ray's agents live on for 40 s and more. Processes of the run carry a mark in their
environment. The reaper runs this file alone, without the package, so that it starts fast and stays small.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

MARK = "RLFRAME_RUN"  # of the environment of all processes of a local cluster
LOOK_S = 4.0  # between two looks at the driver and at the run's processes
GRACE_S = 5.0  # for processes to end by themselves, and to remove their shared memory
GIVE_UP_S = 25.0  # after the driver's end, beyond which nothing is tried
PAUSE_S = 0.2  # between two looks at what is left
CLOSE_S = 10.0  # for the reaper to end after an orderly end


@contextmanager
def reaper() -> Iterator[dict[str, str]]:
    """The variables of the environment that mark processes of a run; once the `with` block ends, none is left.

    That holds for the end of this process by a signal, too.
    """
    mark = uuid.uuid4().hex
    process = subprocess.Popen(
        [sys.executable, "-P", __file__, mark, str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,  # whoever reads the driver's output must not wait for the reaper
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # a signal to the driver's group, such as ^C, does not reach the reaper
    )
    try:
        yield {MARK: mark}
    finally:
        assert process.stdin is not None
        process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(CLOSE_S)


def await_end(driver: int, mark: str) -> set[psutil.Process]:
    """The run's processes at the last look, once the driver has closed its end of stdin, or has ended.

    Ray's agents write their title over their environment, and their parent dies in the same moment as the driver. So
    neither the mark nor the parent tells afterwards that they belong to the run.
    """
    known: set[psutil.Process] = set()
    while os.getppid() == driver and not select.select([0], [], [], LOOK_S)[0]:
        known = marked(mark)
    return known


def reap(mark: str, known: set[psutil.Process]) -> None:
    """Kills `known` processes, those with the mark and their descendants, after a moment to end by themselves."""
    found = known
    began = time.monotonic()
    while time.monotonic() - began < GIVE_UP_S:
        # A sandbox has an empty environment, and is found as a descendant while its parent lives.
        found = {process for process in found | marked(mark) if is_alive(process)}
        if not found:
            return
        if time.monotonic() - began >= GRACE_S:
            for process in found:
                with suppress(psutil.Error):
                    process.kill()
        time.sleep(PAUSE_S)


def marked(mark: str) -> set[psutil.Process]:
    """Processes whose environment has the mark, and their descendants."""
    processes: set[psutil.Process] = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # it has ended, or is another user's
            if process.environ().get(MARK) == mark:
                processes |= {process, *process.children(recursive=True)}
    return processes


def is_alive(process: psutil.Process) -> bool:
    """False for a process that has ended, whether or not its parent has noticed."""
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


if __name__ == "__main__":
    reap(sys.argv[1], await_end(int(sys.argv[2]), sys.argv[1]))
