"""Compares a step of this working tree with a step of an earlier revision: the reference job at staleness 0, in turns.

    python benchmarks/two_revisions.py 85dd4ac --rounds 3 --steps 8

Prints the median seconds of a step and of its parts on each side, with the smallest and the largest value, and the
ratio of the medians of a step. The first step of each job (warm-up) does not count. Also names the metrics whose values
differ between the two sides, apart from times and sizes of processes: equal seeds give equal completions, rewards and
losses, unless a change meant to alter them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
PARTS = ("time/rollout_wait_s", "time/learner_s", "time/weight_sync_s")  # of a step
MEASURED = ("time/", "memory/", "usage/", "tokens_per_s", "_s", "_ms", "_mib", "_gib")  # parts of names


@dataclass
class Side:
    """The jobs of one tree."""

    name: str
    tree: Path
    step_s: list[float] = field(default_factory=list)
    parts_s: dict[str, list[float]] = field(default_factory=lambda: {part: [] for part in PARTS})
    metrics: list[dict[str, float]] = field(default_factory=list)  # of the first job, one a step

    def measure(self, steps: int, run_dir: Path) -> None:
        command = [sys.executable, "-m", "rlframe.cli", "train", "experiment=smollm2_arithmetic", f"steps={steps}"]
        command += ["max_staleness=0", "evaluate.every=0", "checkpoint.every=0", f"run_dir={run_dir}"]
        environment = os.environ | {"PYTHONPATH": str(self.tree)}
        subprocess.run(command, check=True, stdout=sys.stderr, cwd=self.tree, env=environment)
        metrics = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
        self.step_s += [line["time/step_s"] for line in metrics[1:]]
        for part, seconds in self.parts_s.items():
            seconds += [line[part] for line in metrics[1:]]
        self.metrics = self.metrics or metrics


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("revision", help="the earlier revision, of git")
    parser.add_argument("--rounds", type=int, default=3, help="jobs a side")
    parser.add_argument("--steps", type=int, default=8, help="steps a job")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "earlier"
        git("worktree", "add", "--detach", str(tree), arguments.revision)
        try:
            sides = [Side("now", HERE), Side(arguments.revision, tree)]
            for number in range(arguments.rounds):
                for side in sides if number % 2 == 0 else reversed(sides):
                    side.measure(arguments.steps, Path(folder) / f"{side.name}-{number}")
        finally:
            git("worktree", "remove", "--force", str(tree))
    for side in sides:
        print(f"{side.name}: a step takes {spread(side.step_s)} s")
        for part, seconds in side.parts_s.items():
            print(f"    {part} {spread(seconds)}")
    now, earlier = (statistics.median(side.step_s) for side in sides)
    print(f"a step now takes {now / earlier:.3f} of the time of {arguments.revision}")
    print(f"values that differ: {', '.join(differing(*(side.metrics for side in sides))) or 'none'}")


def git(*arguments: str) -> None:
    subprocess.run(["git", "-C", str(HERE), *arguments], check=True, stdout=sys.stderr)


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def differing(now: list[dict[str, float]], earlier: list[dict[str, float]]) -> list[str]:
    """Names of the metrics that both sides have and that differ at some step, apart from measurements."""
    common = [name for name in now[0] if name in earlier[0] and not any(part in name for part in MEASURED)]
    return [name for name in common if any(a.get(name) != b.get(name) for a, b in zip(now, earlier, strict=True))]


if __name__ == "__main__":
    main()
