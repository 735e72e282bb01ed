"""The learner alone on one GPU: tokens/s, MFU and peak memory of full fine-tuning at Qwen3-0.6B's shapes.

    PYTHONPATH=. python benchmarks/learner_gpu.py [--head-dtype bfloat16] [--gradient-checkpointing] [--cpu]

The learner's own rank under ZeRO-3 in bfloat16, on random weights: it needs torch, transformers and DeepSpeed, neither
Ray nor vLLM nor a hub. A step is an update over 4 micro-batches of 16,384 tokens: whole sequences of that length, as
the peer's published figure is of, and groups of 8 completions behind a prompt that stands once. Prints one JSON line a
job: medians with extremes over 5 steps, after 2 that are left out. MFU is by flops.py over the device's dense bfloat16
peak. Without a GPU, or with --cpu, the same code runs tiny shapes on the CPU, and only its tokens/s are told.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch
import yaml
from transformers import AutoModelForCausalLM, Qwen3Config

sys.path.insert(0, str(Path(__file__).parent))  # run as a file: its neighbours are no package

from flops import QWEN3_0_6B, ideal, seen
from reference_job import spread

from rlframe.algorithm import DAPO
from rlframe.batch.shares import to_shares
from rlframe.learner.config import LearnerConfig
from rlframe.learner.rank import LearnerRank
from rlframe.objective import Objective
from rlframe.training import TrainSample

LEARNER = Path(__file__).parents[1] / "conf" / "learner" / "zero3.yaml"
OBJECTIVE = Objective(algorithm=DAPO(name="dapo", clip_low=0.2, clip_high=0.28))
PEER = "peer: prime-rl, Qwen3-0.6B, 16k tokens on one H100: 11.1 % MFU, 11900 tokens/s (as published)"
TERAFLOPS = {  # dense bfloat16, by NVIDIA's data sheets; the first that a device's name contains
    "H100 PCIe": 756, "H100 NVL": 835, "H100": 989, "H200": 989, "B200": 2250, "A100": 312, "L40S": 362,
}  # fmt: skip
MICRO_BATCHES = 4
TINY = Qwen3Config(
    vocab_size=512, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
    num_key_value_heads=1, head_dim=32, max_position_embeddings=512, tie_word_embeddings=True,
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cpu", action="store_true", help="tiny shapes on the CPU, also where there is a GPU")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--head-dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--gradient-checkpointing", action="store_true")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning)  # DeepSpeed calls torch by an older name, at every layer
    if arguments.cpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    on_gpu = torch.cuda.is_available()
    if not on_gpu:
        os.environ["DS_ACCELERATOR"] = "cpu"
        print("no GPU in use: tiny shapes on the CPU, which say nothing of a GPU")
    model, tokens = (QWEN3_0_6B, 16_384) if on_gpu else (TINY, 256)
    choices = {"head_dtype": arguments.head_dtype, "gradient_checkpointing": arguments.gradient_checkpointing}
    with tempfile.TemporaryDirectory() as folder:
        rank = launch(model, Path(folder), {**choices, "dtype": "bfloat16", "micro_batch_tokens": tokens})
    print(json.dumps({"device": torch.cuda.get_device_name() if on_gpu else "cpu", "peak_tflops": peak(), **choices}))
    for name, (prompts, completions, shared) in {
        f"whole sequences of {tokens}": (MICRO_BATCHES, 1, 1),
        "groups of 8 behind their prompts": (MICRO_BATCHES, 8, tokens // 32),
    }.items():
        own = (tokens - shared) // completions
        samples = make_samples(prompts, completions, shared, own, model.vocab_size)
        needed = prompts * ideal(model, tokens, seen(shared, [own] * completions))
        print(json.dumps({"job": name, **measure(rank, samples, needed, arguments.warmup, arguments.steps)}))
    if on_gpu:
        print(PEER)


def launch(model: Qwen3Config, folder: Path, choices: dict[str, object]) -> LearnerRank:
    """One rank with the config file's settings and `choices`, on random weights that are written into `folder`."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(model, dtype=torch.bfloat16).save_pretrained(folder)
    config = LearnerConfig.model_validate({**yaml.safe_load(LEARNER.read_text()), **choices})
    rank = LearnerRank("learner", config, folder, temperature=1.0, steps=1000, packing="shared")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    rank.connect(f"127.0.0.1:{port}", rank=0, timeout_s=60.0)
    return rank


def measure(rank: LearnerRank, samples: list[TrainSample], needed: float, warmup: int, steps: int) -> dict:
    """Of a step on `samples`, which takes `needed` operations at least."""
    [share] = to_shares(samples, 1, rank.config.micro_batch_tokens)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for version in range(warmup + steps):
        began = time.perf_counter()
        sums = rank.step([share], OBJECTIVE, version)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
        assert not sums["skipped"], "an update was not finite"
    tokens, timed = sums["packed_tokens"], seconds[warmup:]
    figures = {"micro_batches": len(share), "tokens": tokens, "tokens_per_s": spread([tokens / s for s in timed])}
    if peak():
        figures["mfu_percent"] = spread([100 * needed / s / peak() / 1e12 for s in timed])
    if torch.cuda.is_available():
        figures["peak_memory_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 1)
    return figures


def peak() -> float | None:
    """TFLOP/s of the device, where its name is a known one's."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return next((teraflops for known, teraflops in TERAFLOPS.items() if known in name), None)


def make_samples(prompts: int, completions: int, shared: int, own: int, vocabulary: int) -> list[TrainSample]:
    """Random tokens, about as likely to the engine as to a random policy; half of the completions are pushed down."""
    rng = np.random.default_rng(0)
    counted = np.arange(shared + own) >= shared
    samples = []
    for at in range(prompts):
        prompt = rng.integers(0, vocabulary, shared)
        for _ in range(completions):
            samples.append(
                TrainSample(
                    prompt_id=str(at),
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


if __name__ == "__main__":
    main()
