"""Seconds of each phase of a run's start, and CPU seconds of each kind of process until engines and ranks are up.

    python benchmarks/start.py [experiment=smollm2_arithmetic] [key=value ...]

On a machine with other work wall seconds say little: compare CPU seconds, and repeat.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from threading import Event, Thread

import psutil

RLFRAME = [sys.executable, "-m", "rlframe.cli", "train"]
SETTINGS = ["steps=1", "evaluate.every=0", "checkpoint.every=0", "rollout.max_tokens=4"]
PHASE = re.compile(r"✓ (?P<name>.*?)  (?P<seconds>[\d.]+) s")
LAST_PHASE = "starting engines"
SAMPLE_S = 0.2


class ProcessTimes:
    """CPU seconds of a process and its offspring, the dead ones included, sampled in a thread."""

    def __init__(self, pid: int) -> None:
        self.root = psutil.Process(pid)
        self.seconds: dict[tuple[int, float], tuple[str, float]] = {}  # process -> kind and CPU seconds
        self.stopped = Event()
        self.thread = Thread(target=self._watch, daemon=True)
        self.thread.start()

    def _watch(self) -> None:
        while not self.stopped.wait(SAMPLE_S):
            self.sample()

    def sample(self) -> None:
        try:
            offspring = self.root.children(recursive=True)
        except psutil.NoSuchProcess:
            return
        for process in (self.root, *offspring):
            try:
                times = process.cpu_times()
                key = process.pid, process.create_time()
                self.seconds[key] = "driver" if process == self.root else kind(process), times.user + times.system
            except psutil.Error:
                continue

    def by_kind(self) -> dict[str, float]:
        """Kind -> CPU seconds, the largest first."""
        self.stopped.set()
        self.thread.join()
        self.sample()
        totals: dict[str, float] = defaultdict(float)
        for name, seconds in self.seconds.values():
            totals[name] += seconds
        return dict(sorted(totals.items(), key=lambda item: -item[1]))


def kind(process: psutil.Process) -> str:
    """`ray::LearnerRank`, `VLLM::EngineCore`; otherwise the script or program, as `dashboard.py` and `raylet`."""
    command = process.cmdline()
    title = command[0].split()[0].split(".")[0] if command else process.name()
    if "::" in title:
        return title
    scripts = [word for word in command if word.endswith(".py")]
    return (scripts or [process.name()])[-1].rpartition("/")[2]


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        command = [*RLFRAME, *SETTINGS, f"run_dir={folder}/run", *(sys.argv[1:] or ["experiment=smollm2_arithmetic"])]
        began = time.monotonic()
        run = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, bufsize=1)
        times = ProcessTimes(run.pid)
        assert run.stdout is not None
        for line in run.stdout:
            if not (phase := PHASE.match(line)):
                continue
            print(f"{float(phase['seconds']):8.2f} s  {phase['name']}", flush=True)
            if phase["name"].startswith(LAST_PHASE):
                cpu_seconds = times.by_kind()
                print(f"{time.monotonic() - began:8.2f} s  from the command to here\n")
                print(f"{sum(cpu_seconds.values()):8.2f} CPU seconds")
                for name, seconds in cpu_seconds.items():
                    if seconds >= 0.1:
                        print(f"{seconds:8.2f}   {name}")
        return run.wait()


if __name__ == "__main__":
    sys.exit(main())
