"""Seconds of submitted runs on a cluster of this machine, and checkpoints of runs that are stopped at random moments.

python benchmarks/submit.py [--stops 5]

a config error           from the command to its refusal; at most 3 s
the first line           from the command to the run's first line; at most 20 s
a wrong model            from the command to the cluster's refusal; at most 30 s
stops                    whole checkpoints of runs that `rlframe stop` has ended, and seconds of each stop
"""

from __future__ import annotations

import argparse
import random
import re
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from rlframe.train.checkpoint import newest_whole  # noqa: E402
from tests.conftest import tiny_overrides  # noqa: E402
from tests.tiny.jobs_cluster import JobsCluster, jobs_cluster  # noqa: E402
from tests.tiny.models import make_llama  # noqa: E402

FIRST_LINE = "… preparing the model"
REFUSED = {"a config error": ["learner.lrr=1"], "a wrong model": ["model.path=/nowhere", "run_dir=/nowhere"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stops", type=int, default=5)
    stops = parser.parse_args().stops
    with TemporaryDirectory(prefix="ray") as folder, TemporaryDirectory() as work:
        model = Path(work) / "model"
        model.mkdir()
        make_llama(model, tie_word_embeddings=True)
        settings = [*tiny_overrides(model), "steps=100000", "checkpoint.every=100000", "evaluate.every=0"]
        with jobs_cluster(Path(folder)) as cluster:
            for name, arguments in REFUSED.items():
                print(f"{name:<18}{seconds(cluster, 'submit', *arguments, folder=Path(work)):5.1f} s")
            first_s = []
            whole = []
            for number in range(stops):
                run_dir = Path(work) / f"run{number}"
                first_s.append(submit(cluster, [*settings, f"run_dir={run_dir}"], Path(work), run_dir))
                whole.append(stop(cluster, Path(work), run_dir))
            print(f"the first line    {max(first_s, default=0):5.1f} s at most, of {stops}")
            print(f"stops             {sum(whole)} of {stops} left the whole checkpoint that they told")


def seconds(cluster: JobsCluster, *arguments: str, folder: Path) -> float:
    began = time.monotonic()
    assert cluster.rlframe(*arguments, folder=folder).returncode == 2
    return time.monotonic() - began


def submit(cluster: JobsCluster, settings: list[str], folder: Path, run_dir: Path) -> float:
    """Starts a run, and waits for a random moment after its first step -> seconds to its first line."""
    began, first_s = time.monotonic(), 0.0
    command = [sys.executable, "-m", "rlframe.cli", "submit", *settings]
    followed = subprocess.Popen(command, cwd=folder, env=cluster.laptop, stdout=subprocess.PIPE, text=True)
    assert followed.stdout is not None
    for line in followed.stdout:
        if not first_s and FIRST_LINE in line:
            first_s = time.monotonic() - began
        if re.match(r" +1/100000 ", line):
            break
    followed.kill()
    followed.wait()
    time.sleep(5 * random.random())
    return first_s


def stop(cluster: JobsCluster, folder: Path, run_dir: Path) -> bool:
    """Stops the run -> True if its checkpoint is whole and is the one that the command told."""
    [job_id] = re.findall(rf"^(\S+)  {run_dir} .* running", cluster.rlframe("jobs", folder=folder).stdout, re.MULTILINE)
    began = time.monotonic()
    stopped = cluster.rlframe("stop", job_id, folder=folder)
    checkpoint = newest_whole(run_dir / "checkpoints", print)
    told = stopped.stdout.strip().rpartition("checkpoint: ")[2]
    last_line = (stopped.stdout + stopped.stderr).strip().splitlines()[-1]
    print(f"  {time.monotonic() - began:5.1f} s  {last_line}")
    return checkpoint is not None and str(checkpoint) == told


if __name__ == "__main__":
    main()
