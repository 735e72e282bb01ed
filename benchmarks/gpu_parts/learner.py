"""A learner rank under ZeRO-3, alone: its update, its checkpoints, its export. Needs torch, transformers, DeepSpeed."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import yaml
from transformers import AutoModelForCausalLM, PretrainedConfig, Qwen3Config

from benchmarks.flops import QWEN3_0_6B, ideal, seen
from benchmarks.gpu_parts import Figure, Skip
from rlframe.actors.sockets import free_address
from rlframe.algorithm import DAPO
from rlframe.batch.collate import collate
from rlframe.batch.shares import to_shares
from rlframe.learner import state
from rlframe.learner.config import LearnerConfig
from rlframe.learner.rank import LearnerRank
from rlframe.objective.objective import Objective
from rlframe.training import TrainSample
from tests.tiny.models import byte_tokenizer

LEARNER = Path(__file__).parents[2] / "conf" / "learner" / "zero3.yaml"
OBJECTIVE = Objective(algorithm=DAPO(name="dapo", clip_low=0.2, clip_high=0.28))
TERAFLOPS = {  # dense bfloat16, by NVIDIA's data sheets; the first that a device's name contains
    "H100 PCIe": 756, "H100 NVL": 835, "H100": 989, "H200": 989, "B200": 2250, "A100": 312, "L40S": 362,
}  # fmt: skip
TINY = Qwen3Config(
    vocab_size=512, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
    num_key_value_heads=1, head_dim=32, max_position_embeddings=512, tie_word_embeddings=True, initializer_range=0.2,
)  # fmt: skip
# Qwen3-0.6B's layers, four of them, with a small vocabulary: the same kernels, and files of 0.2 GB.
FEW_LAYERS = Qwen3Config(
    **{key: value for key, value in QWEN3_0_6B.to_dict().items() if key != "layer_types"}
    | {"vocab_size": 4096, "num_hidden_layers": 4}
)
TIMED_STEPS, WARMUP_STEPS = 5, 2
MICRO_BATCHES = 4


def resume(small: bool) -> Iterator[Figure]:
    """Fused AdamW: step, save, load, step, beside the same two steps without the interruption."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    model, tokens = (TINY, 128) if small else (FEW_LAYERS, 2048)
    samples = make_samples(2, 4, tokens // 4, tokens // 8, model.vocab_size)
    with TemporaryDirectory() as folder:
        first = launch(model, Path(folder) / "model", small, micro_batch_tokens=tokens, lr=1e-3)
        step(first, samples, 0)
        save(first, Path(folder) / "saved")
        saved = states(first)
        step(first, samples, 1)
        second = launch(model, Path(folder) / "model", small, micro_batch_tokens=tokens, lr=1e-3)
        second.load(Path(folder) / "saved")
        restored = states(second)
        step(second, samples, 1)
    yield Figure("tensors of the state", len(saved), at_least=3)
    yield Figure("tensors that saving and loading changed", differing(saved, restored), at_most=0)
    yield Figure("tensors that differ after the next step", differing(states(first), states(second)), at_most=0)
    yield Figure("tensors that this step left as they were", len(saved) - differing(saved, states(first)))


def export(small: bool) -> Iterator[Figure]:
    """One rank (NCCL on a GPU) loads a model, makes a step and exports; another rank loads the export."""
    model, tokens = (TINY, 128) if small else (FEW_LAYERS, 2048)
    samples = make_samples(2, 4, tokens // 4, tokens // 8, model.vocab_size)
    with TemporaryDirectory() as folder:
        started = time.perf_counter()
        trained = launch(model, Path(folder) / "model", small, micro_batch_tokens=tokens, lr=1e-3)
        yield Figure("load", time.perf_counter() - started, "s")
        before = logprobs(trained, [samples])
        step(trained, samples, 0)
        after = logprobs(trained, [samples])
        save(trained, Path(folder) / "saved", Path(folder) / "export")
        exported = launch(model, Path(folder) / "export", small, micro_batch_tokens=tokens)
        yield Figure("mean change of a log-probability by the step", mean_change(before, after), "nats", at_least=1e-4)
        yield Figure("by the export", mean_change(after, logprobs(exported, [samples])), "nats", at_most=0)


def sleep(small: bool) -> Iterator[Figure]:
    """A rank whose state leaves the GPU and returns between two steps, beside a rank that keeps its state there."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    model, tokens = (TINY, 128) if small else (FEW_LAYERS, 2048)
    samples = make_samples(2, 4, tokens // 4, tokens // 8, model.vocab_size)
    with TemporaryDirectory() as folder:
        steady, sleeper = (launch(model, Path(folder), small, micro_batch_tokens=tokens, lr=1e-3) for _ in range(2))
    for rank in (steady, sleeper):
        step(rank, samples, 0)
    freed = sleeper.sleep(keep_parameters=False)
    yield Figure("memory that sleep frees", freed / 2**30, "GiB", at_least=0 if small else 0.5)
    sleeper.wake()
    for rank in (steady, sleeper):
        step(rank, samples, 1)
    yield Figure("tensors that differ after the next step", differing(states(steady), states(sleeper)), at_most=0)


def step_speed(small: bool) -> Iterator[Figure]:
    """Updates at Qwen3-0.6B's shapes in bfloat16: 4 micro-batches of 16,384 tokens, groups and whole sequences."""
    model, tokens = (TINY, 256) if small else (QWEN3_0_6B, 16_384)
    with TemporaryDirectory() as folder:
        rank = launch(model, Path(folder), small, micro_batch_tokens=tokens, dtype="bfloat16")
    groups = make_samples(MICRO_BATCHES, 8, tokens // 32, (tokens - tokens // 32) // 8, model.vocab_size)
    whole = make_samples(MICRO_BATCHES, 1, 1, tokens - 1, model.vocab_size)
    packed, apart = logprobs(rank, [groups[:8]]), logprobs(rank, [[sample] for sample in groups[:8]])
    yield Figure("shared against whole packing: mean change", mean_change(packed, apart), "nats", at_most=0.02)
    for name, samples, pairs in (
        ("groups of 8", groups, seen(tokens // 32, [(tokens - tokens // 32) // 8] * 8)),
        (f"whole sequences of {tokens}", whole, seen(1, [tokens - 1])),
    ):
        yield from speed(name, rank, samples, MICRO_BATCHES * ideal(model, tokens, pairs), small)


def flash(small: bool) -> Iterator[Figure]:
    """flash_attention_2 beside rlframe's own attention, if the package is there."""
    try:
        import flash_attn  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise Skip("flash_attn is not installed") from None
    samples = make_samples(2, 4, 512, 256, FEW_LAYERS.vocab_size)
    with TemporaryDirectory() as folder:
        values = [
            logprobs(
                launch(FEW_LAYERS, Path(folder), small, dtype="bfloat16", attention=attention, packing="whole"),
                [samples],
            )
            for attention in ("rlframe_packed", "flash_attention_2")
        ]
    yield Figure("mean change of a log-probability", mean_change(*values), "nats", at_most=0.02)


def launch(model: PretrainedConfig, folder: Path, small: bool, **choices: Any) -> LearnerRank:
    """A rank with the config file's settings and `choices`, on random weights that are written into `folder`."""
    warnings.filterwarnings("ignore", category=FutureWarning)  # DeepSpeed calls torch by an older name, at every layer
    if not folder.joinpath("config.json").is_file():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(model, dtype=torch.bfloat16).save_pretrained(folder)
        byte_tokenizer().save_pretrained(folder)  # an export copies it
    settings = {"dtype": "float32", "packing": "shared", "gpus": 0 if small else 1, **choices}
    config = LearnerConfig.model_validate({**yaml.safe_load(LEARNER.read_text()), **settings})
    rank = LearnerRank("learner", config, folder, temperature=1.0, steps=1000, packing=settings["packing"])
    rank.connect(free_address("127.0.0.1"), rank=0, timeout_s=60.0)
    return rank


def step(rank: LearnerRank, samples: list[TrainSample], version: int) -> dict[str, float]:
    [share] = to_shares(samples, 1, rank.config.micro_batch_tokens)
    sums = rank.step([share], OBJECTIVE, version)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    assert not sums["skipped"], "an update was not finite"
    return sums


def speed(name: str, rank: LearnerRank, samples: list[TrainSample], needed: float, small: bool) -> Iterator[Figure]:
    """Measures updates on `samples`, each of which takes `needed` operations at least."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    seconds, tokens = [], 0.0
    for version in range(1 if small else WARMUP_STEPS + TIMED_STEPS):
        started = time.perf_counter()
        tokens = step(rank, samples, version)["packed_tokens"]
        seconds.append(time.perf_counter() - started)
    typical = median(seconds[WARMUP_STEPS:] or seconds)
    yield Figure(f"{name}: speed", tokens / typical, "tokens/s")
    if peak := teraflops():
        yield Figure(f"{name}: MFU", 100 * needed / typical / peak / 1e12, "%", at_most=100)
    if torch.cuda.is_available():
        yield Figure(f"{name}: peak memory", torch.cuda.max_memory_allocated() / 2**30, "GiB")


def teraflops() -> float | None:
    """Dense bfloat16 TFLOP/s of the device; None for a device with another name."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return next((value for known, value in TERAFLOPS.items() if known in name), None)


def save(rank: LearnerRank, folder: Path, exported: Path | None = None) -> None:
    rank.save(folder, exported)
    rank.writing.result()


def states(rank: LearnerRank) -> dict[str, torch.Tensor]:
    """Every tensor of the rank's state: master weights, moments, counters."""
    shards = state.snapshot(rank.engine.module, rank.optimizer, {}, rank=0).shards
    return {f"{name} {kind}": tensor for name, shard in shards.items() for kind, tensor in shard.tensors.items()}


def differing(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> int:
    """Tensors that differ in a bit, or that one side lacks."""
    return sum(
        name not in one or name not in other or not torch.equal(one[name], other[name]) for name in one.keys() | other
    )


def logprobs(rank: LearnerRank, micro_batches: list[list[TrainSample]]) -> torch.Tensor:
    """Log-probabilities of all counted tokens, in the order of the samples."""
    values = []
    for samples in micro_batches:
        batch = collate(samples, rank.packing)
        values.append(rank.updater.logprobs(batch).cpu()[batch.loss_weights != 0])
    return torch.cat(values)


def mean_change(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().mean())


def make_samples(prompts: int, completions: int, shared: int, own: int, vocabulary: int) -> list[TrainSample]:
    """Random tokens, about as likely to the engine as to a random policy; half of the completions are pushed down."""
    rng = np.random.default_rng(0)
    counted = np.arange(shared + own) >= shared
    samples = []
    for index in range(prompts):
        prompt = rng.integers(0, vocabulary, shared)
        for _ in range(completions):
            samples.append(
                TrainSample(
                    prompt_id=str(index),
                    prefix_tokens=shared,
                    token_ids=np.concatenate([prompt, rng.integers(0, vocabulary, own)]).astype(np.int32),
                    sampled=counted,
                    rollout_logprobs=np.where(counted, -np.log(vocabulary), 0).astype(np.float32),
                    advantages=np.where(counted, rng.choice([-1.0, 1.0]), 0).astype(np.float32),
                    loss_weights=counted.astype(np.float32) / (prompts * completions * own),
                    mean_weights=counted.astype(np.float32) / (prompts * completions * own),
                )
            )
    return samples
