"""The reaper: no process of a local run outlives its driver, whatever ended the driver, and nothing else dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from rlframe.cluster.reaper import MARK, reaper

# A marked process with a child that has an empty environment, as sandboxes have. Both ignore SIGTERM.
DRIVER = """
import os, psutil, subprocess, sys, time
from rlframe.cluster.reaper import reaper

CHILD = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
WORKER = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {CHILD!r}], env={{}})"
with reaper() as mark:
    worker = subprocess.Popen([sys.executable, "-c", WORKER], env=os.environ | mark)
    if os.fork() == 0:
        time.sleep(600)  # holds the driver's end of the reaper's pipe
    while not psutil.Process(worker.pid).children():
        time.sleep(0.05)
    print("ready", flush=True)
    time.sleep(600)
"""


@contextmanager
def started() -> Iterator[subprocess.Popen[str]]:
    driver = subprocess.Popen([sys.executable, "-c", DRIVER], stdout=subprocess.PIPE, text=True)
    offspring: list[psutil.Process] = []
    try:
        assert driver.stdout is not None and driver.stdout.readline() == "ready\n"
        offspring = psutil.Process(driver.pid).children(recursive=True)
        yield driver
    finally:
        driver.kill()
        driver.wait()
        for process in offspring:
            if process.is_running():
                process.kill()


def await_end(processes: list[psutil.Process]) -> list[psutil.Process]:
    _, alive = psutil.wait_procs(processes, timeout=30)
    return [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_driver_leaves_no_process_of_its_run(number: signal.Signals):
    with started() as driver:
        children = psutil.Process(driver.pid).children()
        offspring = psutil.Process(driver.pid).children(recursive=True)
        assert len(offspring) == 4  # the reaper, the worker, its child, and the forked process
        [forked] = [child for child in children if child.cmdline() == psutil.Process(driver.pid).cmdline()]
        bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        driver.send_signal(number)
        assert await_end([process for process in offspring if process != forked]) == []
        assert bystander.poll() is None and forked.is_running()  # neither has the mark
        bystander.kill()
        bystander.wait()


def test_after_an_orderly_end_no_reaper_is_left():
    before = set(psutil.Process().children())
    with reaper() as mark:
        [process] = set(psutil.Process().children()) - before
        assert list(mark) == [MARK] and MARK not in os.environ
    assert not process.is_running()
