"""What packing saves: fill and balance on a trace of lengths, a step with and without shared prompts, peak memory.

    python benchmarks/packing.py [--trace]

On the trace, the operations that the learner does for a token of a completion (at Qwen3-0.6B's shapes) are set against
the ideal: 6 N and attention for every distinct token, each group's prompt once. --trace prints that alone.

SmolLM2-135M's shapes with random weights in bfloat16, on the CPU's cores: forward and backward pass of packed groups,
shared and unshared by turns in this one run. Prints one JSON line a measurement, and ratios of medians beside what they
could be at best: G (P + R) / (P + G R) for G completions of R tokens behind prompts of P.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM

sys.path.insert(0, str(Path(__file__).parent))  # run as a file: its neighbours are no package

from flops import QWEN3_0_6B, SMOLLM2, computed, ideal, seen

from rlframe.batch.collate import collate
from rlframe.batch.packing import Item, cost, pack
from rlframe.model import attention
from rlframe.model.logprobs import LogprobHead
from rlframe.model.policy import Policy
from rlframe.model.precision import fastest
from rlframe.training import PACKED_ATTENTION, TrainBatch, TrainSample

ROUNDS = 6  # the first is left out
JOBS = {  # prompts, completions of each, tokens of a prompt, of a completion
    "reference job": (8, 8, 68, 24),
    "P = R": (1, 8, 256, 256),
    "P = R, G = 16": (1, 16, 128, 128),
}


def main() -> None:
    for name, ranks, capacity, items in traces():
        began = time.process_time()
        shares = pack(items, ranks, capacity)
        seconds = time.process_time() - began
        totals = [sum(map(cost, share)) for share in shares]
        filled = sum(totals) / (ranks * len(shares[0]) * capacity)
        figures = {"fill": filled, "rank_balance": max(totals) * ranks / sum(totals)}
        report("packing", name, seconds, **figures, **work(items, [batch for share in shares for batch in share]))
    if "--trace" in sys.argv:
        return
    head()  # before anything larger sets the process's peak
    attention.register()
    torch.manual_seed(0)
    dtype = getattr(torch, fastest(gpus=0))
    model = AutoModelForCausalLM.from_config(SMOLLM2, dtype=dtype, attn_implementation=PACKED_ATTENTION)
    policy = Policy(model, dtype, "shared")
    for name, (prompts, completions, prompt_tokens, drawn) in JOBS.items():
        samples = groups(prompts, completions, prompt_tokens, drawn)
        batches = {"whole": collate(samples, packing="whole"), "shared": collate(samples)}
        seconds = {kind: [] for kind in batches}
        for _ in range(ROUNDS):
            for kind, batch in batches.items():
                seconds[kind].append(train(policy, batch))
        useful = prompts * completions * drawn
        for kind, batch in batches.items():
            figures = {"packed_tokens": len(batch.token_ids), "gflop_per_useful_token": flops(batch) / useful / 1e9}
            report(name, kind, *seconds[kind][1:], **figures, useful_tokens_per_s=useful / median(seconds[kind]))
        best = completions * (prompt_tokens + drawn) / (prompt_tokens + completions * drawn)
        gain = median(seconds["whole"]) / median(seconds["shared"])
        print(f"{name}: sharing is {gain:.2f} times as fast; {best:.2f} if a token cost the same everywhere")


def traces() -> list[tuple[str, int, int, list[Item]]]:
    """Median 1k tokens, sigma 1, at most 16k; alone, and in groups of 16 behind prompts of median 250."""
    rng = np.random.default_rng(0)
    alone = [
        Item(index=at, group=str(at), shared=0, own=int(size))
        for at, size in enumerate(rng.lognormal(np.log(1000), 1.0, 8192).clip(1, 16_384))
    ]
    in_groups = []
    for at in range(512):
        prompt, drawn = int(rng.lognormal(np.log(250), 0.5)) + 1, rng.lognormal(np.log(700) + rng.normal(), 0.5, 16)
        in_groups += [Item(index=0, group=str(at), shared=prompt, own=int(own)) for own in drawn.clip(1, 12_000)]
    return [
        ("2048 sequences, 8 ranks of 16k", 8, 16_384, alone[:2048]),
        ("2048 sequences, 8 ranks of 32k", 8, 32_768, alone[:2048]),
        ("8192 sequences, 8 ranks of 16k", 8, 16_384, alone),
        ("128 groups of 16, 8 ranks of 16k", 8, 16_384, in_groups[:2048]),
        ("512 groups of 16, 8 ranks of 16k", 8, 16_384, in_groups),
    ]


def work(items: list[Item], batches: list[list[Item]]) -> dict[str, float]:
    """Operations a useful token: those of `batches` and of no prompt shared, over the ideal; every own token counts."""
    useful = sum(item.own for item in items)
    best = sum(ideal(QWEN3_0_6B, tokens, pairs) for tokens, pairs, _ in families(items))
    done = sum(computed(QWEN3_0_6B, *family) for batch in batches for family in families(batch))
    apart = sum(computed(QWEN3_0_6B, *family) for item in items for family in families([item]))
    return {
        "ideal_gflop_per_useful_token": best / useful / 1e9,
        "gflop_over_ideal": done / best,
        "gflop_over_ideal_unshared": apart / best,
    }


def families(items: list[Item]) -> list[tuple[int, int, int]]:
    """Of each group, with its shared tokens once: tokens, pairs of one that sees another, tokens that count."""
    by_group: dict[str, list[Item]] = {}
    for item in items:
        by_group.setdefault(item.group, []).append(item)
    found = []
    for group in by_group.values():
        shared, own = group[0].shared, [item.own for item in group]
        found.append((shared + sum(own), seen(shared, own), sum(own)))
    return found


def groups(prompts: int, completions: int, prompt_tokens: int, drawn: int) -> list[TrainSample]:
    rng = np.random.default_rng(0)
    samples = []
    counted = np.arange(prompt_tokens + drawn) >= prompt_tokens
    for at in range(prompts):
        prompt = rng.integers(0, 49_152, prompt_tokens)
        for _ in range(completions):
            samples.append(
                TrainSample(
                    prompt_id=str(at),
                    prefix_tokens=prompt_tokens,
                    token_ids=np.concatenate([prompt, rng.integers(0, 49_152, drawn)]).astype(np.int32),
                    sampled=counted,
                    rollout_logprobs=np.zeros(len(counted), np.float32),
                    advantages=np.ones(len(counted), np.float32),
                    loss_weights=counted.astype(np.float32) / (prompts * completions * drawn),
                    mean_weights=counted.astype(np.float32) / (prompts * completions * drawn),
                )
            )
    return samples


def train(policy: Policy, batch: TrainBatch) -> float:
    """Seconds of a forward and a backward pass."""
    policy.zero_grad()
    began = time.perf_counter()
    logprobs, _ = policy(batch, 1.0)
    (logprobs * batch.loss_weights).sum().backward()
    return time.perf_counter() - began


def flops(batch: TrainBatch) -> float:
    pairs = int((batch.position_ids + 1).sum())  # a token sees every position up to its own, wherever it lies
    return computed(SMOLLM2, len(batch.token_ids), pairs, int((batch.loss_weights != 0).sum()))


def head() -> None:
    """Peak memory of 4096 tokens' log-probabilities and their gradients, in chunks and with all logits at once."""
    for vocabulary in (49_152, 151_936):
        linear = torch.nn.Linear(576, vocabulary, bias=False)
        hidden, targets = torch.randn(4096, 576, requires_grad=True), torch.randint(vocabulary, (4096,))
        chunked = LogprobHead(linear, torch.float32)
        before = peak()
        began = time.perf_counter()
        chunked(hidden, targets, 1.0)[0].sum().backward()
        report("head", f"chunks, vocabulary {vocabulary}", time.perf_counter() - began, peak_mib=peak() - before)
    before = peak()
    began = time.perf_counter()
    linear(hidden).log_softmax(-1).gather(1, targets[:, None]).sum().backward()
    report("head", f"all logits, vocabulary {vocabulary}", time.perf_counter() - began, peak_mib=peak() - before)


def peak() -> float:
    """MiB that this process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def median(seconds: list[float]) -> float:
    return statistics.median(seconds[1:])


def report(part: str, kind: str, *seconds: float, **figures: float) -> None:
    spread = {"median_s": statistics.median(seconds), "min_s": min(seconds), "max_s": max(seconds)}
    values = {key: round(value, 4) for key, value in {**spread, **figures}.items()}
    print(json.dumps({"part": part, "kind": kind, **values}), flush=True)


if __name__ == "__main__":
    main()
