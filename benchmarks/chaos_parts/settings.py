"""The settings of a chaos run: a learner of two ranks on a tiny model, 2 to 4 engines, and steps of a second or two."""

from __future__ import annotations

from pathlib import Path

from rlframe.sandbox.landlock import landlock_abi

PROMPTS, GROUP = 4, 4  # prompts of a step, completions of a prompt
MAX_STALENESS = 2
ENGINES = (2, 4)  # least and most
STALL_S = 40.0  # cluster.stall_timeout_s: after it a stopped rank is taken for dead
ENDLESS = 1_000_000  # steps
REWARDS = "benchmarks.chaos_parts.rewards"


def overrides(model: Path, run_dir: Path) -> list[str]:
    """What `rlframe train` gets, in every life of the driver."""
    sandboxed = f"+reward.terms.sandboxed={{name: '{REWARDS}:Sandboxed', weight: 0.5}}"
    return [
        f"model.path={model}",
        f"run_dir={run_dir}",
        "resume=auto",
        f"prompts_per_step={PROMPTS}",
        f"max_staleness={MAX_STALENESS}",
        "late=wait",
        f"rollout.engines={{min: {ENGINES[0]}, max: {ENGINES[1]}}}",
        f"rollout.group_size={GROUP}",
        "rollout.max_tokens=200",
        "rollout.max_concurrent=8",
        "rollout.kv_cache_gib=1",
        "rollout.dtype=float32",
        "rollout.cpus=1",
        "rollout.silence_s=5",
        "rollout.attempts=20",  # a prompt may meet many faults that it did not cause
        "rollout.episode_workers=2",
        "rollout.max_losses=50",
        "learner.ranks=2",
        "learner.max_losses=50",
        "learner.dtype=float32",
        "learner.cpus=1",
        "learner.lr=1e-5",
        "learner.micro_batch_tokens=1024",
        "reward.workers=2",
        "reward.terms.math.timeout_s=1",
        "reward.timeout_s=7",
        "reward.attempts=20",
        "~reward.terms.format",
        f"+reward.terms.remainder={{name: '{REWARDS}:Remainder', weight: 1.0}}",
        *([sandboxed] if landlock_abi() >= 1 else []),
        "prompts.heldout.size=2",
        "evaluate.every=25",
        "evaluate.samples=2",
        "checkpoint.every=10",
        "checkpoint.export=false",
        "checkpoint.on_error=warn",
        "mismatch.max_k3=1000",  # the engines' log-probabilities are invented
        "mismatch.max_abs_mean=1000",
        "mismatch.max_k3_stale=1000",
        "mismatch.max_abs_mean_stale=1000",
        "cluster.object_store_gib=0.25",
        "cluster.start_timeout_s=180",
        f"cluster.stall_timeout_s={STALL_S:g}",
    ]
