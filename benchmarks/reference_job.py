"""Seconds a step on the reference job: SmolLM2-135M, 8 prompts x 8 completions x 40 tokens, two CPU cores.

    python benchmarks/reference_job.py                # staleness 0 and 1
    python benchmarks/reference_job.py --peer         # and TRL's GRPOTrainer on the same model and prompts
    python benchmarks/reference_job.py --peer-as-is   # and TRL with the settings that it comes with

`--peer` helps TRL: it gets the type that is fastest here and no gradient checkpointing.

Each job is a process of its own, one after the other. The first step of each is left out (warming up). Prints one
JSON line a job, and ratios of medians between jobs of this one run; absolute seconds mean little on a shared machine.
`products` is how long the matrix products of a step, of engine and learner, would take alone, at the rates that
products of their sizes reach in this process: no step can be faster on this machine.
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
from pathlib import Path

from flops import SMOLLM2, computed, drawn

from rlframe.model.precision import fastest

HERE = Path(__file__).parent
PROMPTS, COMPLETIONS, LONGEST = 8, 8, 40  # prompts of a step, completions of each, tokens of one
PARTS = {
    "rollout": "time/rollout_wait_s",  # rewards are scored meanwhile
    "learner": "time/learner_s",
    "sync": "time/weight_sync_s",
    "step": "time/step_s",
}
PEER = ["trl==1.16.0", "torch==2.13.0", "transformers==5.19.0", "accelerate==1.15.0", "datasets==5.2.0"]
PEER_ENVIRONMENT = Path.home() / ".cache" / "rlframe" / "trl-1.16.0"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--peer", action="store_true", help="also run TRL, in an environment of its own")
    parser.add_argument("--peer-as-is", action="store_true", help="also run TRL with its own types and checkpointing")
    parser.add_argument("--peer-env", type=Path, default=PEER_ENVIRONMENT)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        jobs = {f"staleness {k}": rlframe(arguments.steps, k, Path(folder) / f"run{k}") for k in (0, 1)}
        if arguments.peer:
            # As rlframe's `auto`.
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
    """Medians and extremes of each part of a step."""
    command = [sys.executable, "-m", "rlframe.cli", "train", "experiment=smollm2_arithmetic", f"steps={steps}"]
    command += [f"max_staleness={staleness}", "evaluate.every=0", "checkpoint.every=0", f"run_dir={run_dir}"]
    subprocess.run(command, check=True, stdout=sys.stderr)
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()][1:]
    at_a_time = statistics.mean(row["rollout/tokens"] for row in rows) / LONGEST  # completions that are still drawn
    many, few = product_rate(2048), product_rate(round(at_a_time))
    return {part: spread([row[key] for row in rows]) for part, key in PARTS.items()} | {
        "products": spread([learned(row) / many + sampled(row) / few for row in rows]),
        "tokens_per_s": spread([row["rollout/tokens_per_s"] for row in rows]),
        "learner_tokens": spread([row["learner/tokens"] for row in rows]),
    }


def learned(row: dict[str, float]) -> float:
    """Floating-point operations of products over many tokens at once in a step with these metrics: prompts, learner."""
    prompts = PROMPTS * row["rollout/prompt_tokens"]
    new = COMPLETIONS * (1 - row["rollout/prompt_cached"]) * prompts
    packed = row["learner/tokens"]
    # At least: prompts of groups without a signal are left out, and what prompts begin alike with stands once.
    counted = max(0, packed - prompts)
    return drawn(SMOLLM2, new, 0) + computed(SMOLLM2, packed, 0, counted, kept=counted)


def sampled(row: dict[str, float]) -> float:
    """And of products over the token that each completion is at."""
    return drawn(SMOLLM2, 0, row["rollout/tokens"])


def product_rate(tokens: int, seconds: float = 2.0) -> float:
    """Operations a second of all layers' largest products over so many tokens, in a run's type; the best of many."""
    import torch

    dtype = getattr(torch, fastest(gpus=0))
    hidden = torch.randn(tokens, SMOLLM2.hidden_size, dtype=dtype)
    weights = torch.randn(SMOLLM2.num_hidden_layers, SMOLLM2.intermediate_size, SMOLLM2.hidden_size, dtype=dtype)
    best, until = float("inf"), time.perf_counter() + seconds
    while (began := time.perf_counter()) < until:
        for weight in weights:  # one layer's stays in the processor's cache, all do not
            torch.nn.functional.linear(hidden, weight)
        best = min(best, time.perf_counter() - began)
    return 2 * tokens * weights.numel() / best


def trl(steps: int, environment: Path, folder: Path, *settings: str) -> dict:
    """TRL's seconds a step on the prompts that rlframe's job begins with."""
    python = trl_python(environment)
    prompts = folder / "prompts.json"
    model = write_prompts(prompts, steps)
    command = [str(python), str(HERE / "peer_trl.py"), "--model", str(model), "--prompts", str(prompts)]
    quiet = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(
        [*command, *settings, "--steps", str(steps)], check=True, capture_output=True, text=True, env=quiet
    )
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"step":')]
    return {"step": spread([row["seconds"] for row in rows[1:]])}


def trl_python(environment: Path = PEER_ENVIRONMENT) -> Path:
    """The interpreter of TRL's environment, which is made on first use."""
    python = environment / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "uv", "venv", "--python", sys.executable, str(environment)], check=True)
        install = [sys.executable, "-m", "uv", "pip", "install", "--python", str(python), *PEER]
        # A CPU build of torch that pip would find in a folder, uv should find there too, as in launch/setup.sh.
        links = {"UV_FIND_LINKS": os.environ.get("UV_FIND_LINKS", os.environ.get("PIP_FIND_LINKS", ""))}
        subprocess.run(install, check=True, stdout=sys.stderr, env={**os.environ, **links})
    return python


def write_prompts(file: Path, steps: int) -> Path:
    """The job's own prompts, as the peer reads them -> the model's folder."""
    import hydra
    from transformers import AutoTokenizer

    from rlframe.config.compose import conf_dir, load
    from rlframe.model import base_model as model
    from rlframe.prompts.stream import PromptStream

    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        run = load(hydra.compose("train", ["experiment=smollm2_arithmetic"]))
    path = model.prepare(run.model.path)
    tokenizer = AutoTokenizer.from_pretrained(path)
    stream = PromptStream(run.prompts.train.load(), tokenizer, run.prompts.template, run.seed, run.prompts.max_tokens)
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
