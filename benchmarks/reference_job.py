"""Measures seconds per step on the reference job: SmolLM2-135M, 8 prompts x 8 completions x 40 tokens, 2 CPU cores.

    python benchmarks/reference_job.py                # staleness 0 and 1
    python benchmarks/reference_job.py --peer         # and TRL's GRPOTrainer on the same model and prompts
    python benchmarks/reference_job.py --peer-as-is   # and TRL with TRL's default settings

`--peer` helps TRL with the fastest type of this machine and without gradient checkpointing.

Jobs run one after the other, each in a new process; the first step of each (warm-up) does not count. Prints a JSON
line for each job, and ratios of medians between the jobs of a run; absolute seconds mean little on a shared machine.
`products` are the seconds of a step's matrix products alone (engine and learner), at the rates of such products in this
process: no step can be faster on this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from flops import SMOLLM2, computed, drawn
from peers import TRL

from rlframe.model.precision import fastest

HERE = Path(__file__).parent
PROMPTS, COMPLETIONS, LONGEST = 8, 8, 40  # per step, per prompt; tokens per completion
STAGES = {
    "rollout": "time/rollout_wait_s",  # includes the scoring of rewards
    "learner": "time/learner_s",
    "sync": "time/weight_sync_s",
    "step": "time/step_s",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--peer", action="store_true", help="also run TRL, in a separate environment")
    parser.add_argument(
        "--peer-as-is", action="store_true", help="also run TRL with its default types and checkpointing"
    )
    parser.add_argument("--peer-env", type=Path, default=TRL.environment)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        jobs = {f"staleness {k}": rlframe(arguments.steps, k, Path(folder) / f"run{k}") for k in (0, 1)}
        if arguments.peer:
            # The type that rlframe's `auto` chooses.
            jobs["TRL"] = trl(arguments.steps, arguments.peer_env, Path(folder), "--dtype", fastest(gpus=0))
        if arguments.peer_as_is:
            jobs["TRL as is"] = trl(arguments.steps, arguments.peer_env, Path(folder), "--gradient-checkpointing")
    for name, job in jobs.items():
        print(json.dumps({"job": name, **job}))
    step = {name: job["step"]["median"] for name, job in jobs.items()}
    for name in list(step)[1:]:
        print(f"staleness 0 makes {step[name] / step['staleness 0']:.2f} steps while {name} makes one")
    if arguments.peer:
        products = jobs["staleness 0"]["products"]["median"]
        print(f"a step of nothing but its matrix products would make {step['TRL'] / products:.2f}")


def rlframe(steps: int, staleness: int, run_dir: Path) -> dict:
    """Medians and extremes of a step's stages."""
    command = [sys.executable, "-m", "rlframe.cli", "train", "experiment=smollm2_arithmetic", f"steps={steps}"]
    command += [f"max_staleness={staleness}", "evaluate.every=0", "checkpoint.every=0", f"run_dir={run_dir}"]
    subprocess.run(command, check=True, stdout=sys.stderr)
    steps_metrics = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()][1:]
    unfinished = statistics.mean(metrics["rollout/tokens"] for metrics in steps_metrics) / LONGEST  # completions
    many, few = product_rate(2048), product_rate(round(unfinished))
    return {stage: spread([metrics[key] for metrics in steps_metrics]) for stage, key in STAGES.items()} | {
        "products": spread([batched(metrics) / many + decoded(metrics) / few for metrics in steps_metrics]),
        "tokens_per_s": spread([metrics["rollout/tokens_per_s"] for metrics in steps_metrics]),
        "learner_tokens": spread([metrics["learner/tokens"] for metrics in steps_metrics]),
    }


def batched(metrics: dict[str, float]) -> float:
    """A step's floating-point operations in products over many tokens at once: prompts and the learner."""
    prompts = PROMPTS * metrics["rollout/prompt_tokens"]
    uncached = COMPLETIONS * (1 - metrics["rollout/prompt_cached"]) * prompts
    packed = metrics["learner/tokens"]
    # A lower bound: the learner skips groups without a signal and computes common prefixes of prompts once.
    counted = max(0, packed - prompts)
    return drawn(SMOLLM2, uncached, 0) + computed(SMOLLM2, packed, 0, counted, kept=counted)


def decoded(metrics: dict[str, float]) -> float:
    """A step's floating-point operations in products over one new token of each completion."""
    return drawn(SMOLLM2, 0, metrics["rollout/tokens"])


def product_rate(tokens: int, seconds: float = 2.0) -> float:
    """The best rate, in operations per second, of all layers' largest products over `tokens`, in a run's type."""
    import torch

    dtype = getattr(torch, fastest(gpus=0))
    hidden = torch.randn(tokens, SMOLLM2.hidden_size, dtype=dtype)
    weights = torch.randn(SMOLLM2.num_hidden_layers, SMOLLM2.intermediate_size, SMOLLM2.hidden_size, dtype=dtype)
    best, deadline = float("inf"), time.perf_counter() + seconds
    while (began := time.perf_counter()) < deadline:
        for weight in weights:  # all layers, because the processor's cache would hold one layer's weights
            torch.nn.functional.linear(hidden, weight)
        best = min(best, time.perf_counter() - began)
    return 2 * tokens * weights.numel() / best


def trl(steps: int, environment: Path, folder: Path, *settings: str) -> dict:
    """TRL's seconds per step on the first prompts of rlframe's job."""
    python = replace(TRL, environment=environment).python()
    prompts = folder / "prompts.json"
    model = write_prompts(prompts, steps)
    command = [str(python), str(HERE / "peer_trl.py"), "--model", str(model), "--prompts", str(prompts)]
    quiet = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(
        [*command, *settings, "--steps", str(steps)], check=True, capture_output=True, text=True, env=quiet
    )
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"step":')]
    return {"step": spread([line["seconds"] for line in lines[1:]])}


def write_prompts(file: Path, steps: int) -> Path:
    """Writes the job's prompts in the peer's format -> the model's folder."""
    import hydra
    from transformers import AutoTokenizer

    from rlframe.config.compose import conf_dir, load
    from rlframe.model import base_model as model
    from rlframe.train.prompts import open_prompts

    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        run = load(hydra.compose("train", ["experiment=smollm2_arithmetic"]))
    path = model.prepare(run.model.path)
    tokenizer = AutoTokenizer.from_pretrained(path)
    stream, _ = open_prompts(run.prompts, run.reward.terms, tokenizer, run.seed, print)
    prompts = [stream.at(position) for position in range(steps * run.prompts_per_step)]
    file.write_text(json.dumps([{"messages": prompt.messages, "reference": prompt.reference} for prompt in prompts]))
    return path


def spread(values: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 2),
        "min": round(min(values), 2),
        "max": round(max(values), 2),
    }


if __name__ == "__main__":
    main()
