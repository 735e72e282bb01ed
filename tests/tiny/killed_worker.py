"""A worker that is killed while its sandbox runs a program."""

import subprocess
import sys
import time
from pathlib import Path

import psutil


def assert_a_killed_worker_leaves_no_process(script: Path) -> None:
    """Runs a script that prints its fork server's process number and then runs a program without end; kills it."""
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    server = psutil.Process(int(parent.stdout.readline()))
    time.sleep(0.5)
    processes = [server, *server.children(recursive=True)]
    assert len(processes) >= 3
    parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs(processes, timeout=5)
    assert [p for p in alive if p.status() != psutil.STATUS_ZOMBIE] == []
