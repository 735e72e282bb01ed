"""Compares the treatments of old tokens, `late=wait | mask | keep`, on the reference job with slow verdicts.

    python benchmarks/late_tokens.py                     # three seeds, 15 steps: about 25 minutes on two cores
    python benchmarks/late_tokens.py --seeds 1 --steps 6

A reward of weight 0 holds back a share of the completions for some steps, as a slow verifier or a very long completion
would. So some groups are older than `max_staleness` when a step can take them: `wait` lets the learner wait for these,
`mask` gives their old tokens weight 0, `keep` trains on them with truncated importance sampling. Every run trains on
the same number of samples. The reward is the mean over the last third of the steps; `±` is the standard error over
seeds.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import math
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal

from pydantic import Field

from rlframe.reward.base import Reward
from rlframe.types import Completion, Prompt

POLICIES = {
    "wait": ["late=wait"],
    "mask": ["late=mask", "correction=tis"],
    "keep": ["late=keep", "correction=tis"],
    "wait + tis": ["late=wait", "correction=tis"],
}
FIGURES = {
    "s/step": "time/step_s",
    "age mean": "rollout/staleness_mean",
    "age max": "rollout/staleness_max",
    "masked": "rollout/masked_tokens",
    "k3 stale": "mismatch/k3_stale",
}


class SlowVerdict(Reward):
    """0 for every completion; a share of the completions waits for it: lognormal seconds around a median."""

    name: Literal["slow_verdict"] | str
    share: float = Field(ge=0, le=1)
    median_s: float = Field(gt=0)

    async def __call__(self, prompt: Prompt, completion: Completion) -> float:
        digest = hashlib.sha256(f"{prompt.id}/{completion.text}".encode()).digest()
        draw = random.Random(digest)
        if draw.random() < self.share:
            await asyncio.sleep(self.median_s * math.exp(draw.gauss(0.0, 0.5)))
        return 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--max-staleness", type=int, default=2)
    parser.add_argument("--share", type=float, default=0.02, help="of completions with a slow verdict")
    parser.add_argument("--median-s", type=float, default=25.0, help="seconds of a slow verdict, in the median")
    parser.add_argument("--policies", nargs="+", choices=[*POLICIES], default=["wait", "mask", "keep"])
    options = parser.parse_args()
    # Seeds outside, policies inside: a change of the machine's load meets all policies.
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in options.policies}
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        for name in options.policies:
            runs[name].append(run(POLICIES[name], seed, options))
            print(json.dumps({"late": name, "seed": seed} | runs[name][-1]), flush=True)
    for name, figures in runs.items():
        rewards = [of_run["reward"] for of_run in figures]
        error = statistics.stdev(rewards) / math.sqrt(len(rewards)) if len(rewards) > 1 else math.nan
        means = "  ".join(f"{key} {statistics.fmean(of_run[key] for of_run in figures):.3g}" for key in FIGURES)
        print(f"{name:10} reward {statistics.fmean(rewards):.3f} ± {error:.3f}  {means}")


def run(overrides: list[str], seed: int, options: argparse.Namespace) -> dict[str, float]:
    """Means over a run's last two thirds of steps; of the reward over the last third."""
    with tempfile.TemporaryDirectory() as folder:
        slow = f"{{name: {Path(__file__)}:SlowVerdict, weight: 0.0, share: {options.share}, "
        slow += f"median_s: {options.median_s}}}"
        command = [sys.executable, "-m", "rlframe.cli", "train", "experiment=smollm2_arithmetic"]
        command += [f"steps={options.steps}", f"seed={seed}", f"max_staleness={options.max_staleness}"]
        command += [*overrides, f"+reward.terms.slow={slow}", "reward.timeout_s=600"]
        command += ["evaluate.every=0", "checkpoint.every=0", f"run_dir={folder}/run"]
        subprocess.run(command, check=True, stdout=sys.stderr)
        lines = (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line) for line in lines]
    settled = steps[len(steps) // 3 :]
    figures = {key: statistics.fmean(step.get(metric, 0.0) for step in settled) for key, metric in FIGURES.items()}
    last = steps[-(len(steps) // 3) :]
    return {"reward": statistics.fmean(step["reward/mean"] for step in last)} | figures


if __name__ == "__main__":
    main()
