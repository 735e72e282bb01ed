"""Short runs of the whole loop on random models: an engine and a learner rank. Needs all of rlframe's packages.

A run samples, trains, sends the new weights to the engine and samples again. After a step at a high learning rate an
engine with old or wrong weights disagrees with the learner by tenths of a nat a token.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.gpu_parts import Figure, Skip

STEPS = 3
BREVITY = f"{Path(__file__).parents[2] / 'tests' / 'tiny' / 'rewards.py'}:Brevity"
SETTINGS = [
    f"steps={STEPS}",
    "prompts_per_step=4",
    "rollout.group_size=8",
    "rollout.max_concurrent=32",
    "rollout.cpus=1",
    "learner.lr=1e-3",
    "learner.cpus=1",
    "learner.micro_batch_tokens=2048",
    "prompts.train.size=64",
    "prompts.heldout.size=2",
    "checkpoint.every=0",
    "evaluate.every=0",
    "reward.cpus=0.5",
    "cluster.object_store_gib=1",
    # A random model is never right; shorter is something that it can learn, and gives its groups a gradient.
    f"+reward.terms.brevity={{name: '{BREVITY}', weight: 1.0, target: 8}}",
]
SMALL = [
    "rollout.max_tokens=16",
    "rollout.kv_cache_gib=1",
    "rollout.dtype=float32",
    "learner.dtype=float32",
    "cluster.object_store_gib=0.25",
]
GPU = ["rollout.gpus=1", "learner.gpus=1", "rollout.max_tokens=128", "rollout.gpu_memory_share=0.5"]
ON_GPUS = {  # what a part adds
    "engine": [],
    "ipc": ["placement=colocated", "weights.backend=ipc", "rollout.compile=true"],  # CUDA graphs over new weights
    "experts": ["rollout.routed_experts=true"],
    "nccl": ["weights.backend=nccl"],
}
BOUNDS = {"mismatch/k3": 0.002, "mismatch/abs_mean": 0.05}  # nats; a run's own default bounds are 0.015 and 0.1


def engine(small: bool) -> Iterator[Figure]:
    """An engine that gets weights through the object store. On one GPU it takes turns with the learner's rank."""
    needs("ray", "vllm")
    yield from run(qwen3(small), SMALL if small else on_gpus("engine"))


def ipc(small: bool) -> Iterator[Figure]:
    """An engine that sleeps while the learner's rank has its GPU, and takes the weights from the rank's memory."""
    needs("ray", "vllm")
    freed = {"memory/learner_freed_gib": None, "memory/engines_freed_gib": None}
    yield from run(qwen3(small), on_gpus("ipc"), more=freed)


def nccl(small: bool) -> Iterator[Figure]:
    """An engine that gets weights by a broadcast from the learner's GPU."""
    needs("ray", "vllm")
    if torch.cuda.device_count() < 2:
        raise Skip("needs two GPUs, as NCCL takes a GPU for each process")
    yield from run(qwen3(small), on_gpus("nccl"))


def experts(small: bool) -> Iterator[Figure]:
    """A mixture of experts, whose engine records the experts of each token for the learner to choose again."""
    needs("ray", "vllm")
    yield from run(qwen3_moe(), on_gpus("experts"), more={"moe/rerouted": None})


def on_gpus(part: str) -> list[str]:
    """Settings of a part's run on this machine: engine and rank have a GPU each, or one by turns."""
    placement = "separate" if torch.cuda.device_count() > 1 else "colocated"
    return [*GPU, f"placement={placement}", *ON_GPUS[part]]


def run(model: Any, settings: list[str], more: dict[str, float | None] | None = None) -> Iterator[Figure]:
    """Trains `model` for some steps; the agreement of engine and learner at each, and seconds of the last.

    `more`: further metrics of each step, with an upper bound or None.
    """
    from rlframe.train.loop import train

    with TemporaryDirectory() as folder:
        save(model, Path(folder) / "model")
        train(composed(Path(folder), settings))
        steps = [json.loads(line) for line in (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()]
    yield Figure("steps", len(steps), at_least=STEPS)
    bounds = {**BOUNDS, **(more or {})}
    if missing := [name for name in bounds if any(name not in metrics for metrics in steps)]:
        raise RuntimeError(f"steps of this run have no {', '.join(missing)}")
    for name, bound in bounds.items():
        yield Figure(f"{name}, largest of a step", max(metrics[name] for metrics in steps), at_most=bound)
    for name in ("time/step_s", "time/learner_s", "rollout/stall_s"):
        yield Figure(name, steps[-1][name], "s")


def composed(folder: Path, settings: list[str]) -> Any:
    """The checked config of a run in `folder`, whose model is in the folder `model` there."""
    import hydra

    from rlframe.config.compose import conf_dir, load

    overrides = [*SETTINGS, *settings, f"model.path={folder / 'model'}", f"run_dir={folder / 'run'}"]
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return load(hydra.compose("train", overrides))


def needs(*packages: str) -> None:
    if missing := [package for package in packages if find_spec(package) is None]:
        raise Skip(f"{' and '.join(missing)} not installed")


def qwen3(small: bool) -> Any:
    """Qwen3 with random weights: with 0.6B's layers, or in shapes that vLLM's CPU kernels take."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    hidden, layers, heads = (64, 2, 2) if small else (1024, 28, 16)
    return Qwen3ForCausalLM(
        Qwen3Config(
            hidden_size=hidden, intermediate_size=3 * hidden, num_hidden_layers=layers, num_attention_heads=heads,
            num_key_value_heads=heads // 2, head_dim=32 if small else 128, tie_word_embeddings=True,
            initializer_range=0.2 if small else 0.02, **common(),
        )
    )  # fmt: skip


def qwen3_moe() -> Any:
    """Qwen3-MoE of 4 layers with 64 experts of which 8 compute a token."""
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    return Qwen3MoeForCausalLM(
        Qwen3MoeConfig(
            hidden_size=1024, intermediate_size=2048, moe_intermediate_size=512, num_hidden_layers=4, num_experts=64,
            num_experts_per_tok=8, norm_topk_prob=True, num_attention_heads=16, num_key_value_heads=4, head_dim=128,
            tie_word_embeddings=False, **common(),
        )
    )  # fmt: skip


def common() -> dict[str, Any]:
    from tests.tiny.models import byte_tokenizer

    tokenizer = byte_tokenizer()
    return {
        "vocab_size": len(tokenizer), "max_position_embeddings": 1024, "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip


def save(model: Any, folder: Path) -> None:
    from tests.tiny.models import byte_tokenizer

    model.to(torch.bfloat16).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
