"""The plan's kept bytes beside the tensors that live in real ranks after two steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import ray

from rlframe.batch.shares import to_shares
from rlframe.learner.rank import LearnerRank
from rlframe.plan.check import shapes_at
from rlframe.plan.learner_memory import rank_memory
from tests.conftest import compose, tiny_overrides
from tests.tiny.learner import OBJECTIVE, make_samples

# A bucket of the default size, 128 MiB, would hide errors: the model has 0.1 M parameters.
SMALL_BUCKET = "learner.deepspeed={zero_optimization: {reduce_bucket_size: 5000}}"
LORA = "learner.lora={rank: 8, alpha: 16, targets: [q_proj, v_proj]}"


def living_bytes(rank: LearnerRank) -> int:
    """Bytes of all tensors that live in the rank's process and belong to this rank."""
    optimizer = rank.optimizer
    tensors: list[Any] = [optimizer.lp_param_buffer, optimizer.grad_partitions_flat_buffer]
    tensors += optimizer.fp32_partitioned_groups_flat
    tensors += [flat.grad for flat in optimizer.fp32_partitioned_groups_flat if flat.grad is not None]
    tensors += [value for state in optimizer.optimizer.state.values() for value in state.values()]
    tensors += [bucket.buffer for bucket in optimizer.ipg_buckets.values()]
    tensors += [parameter.ds_tensor for parameter in rank.engine.module.parameters()]
    tensors += [] if rank.reference is None else list(rank.reference.tensors.values())
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


@pytest.mark.parametrize(
    "ranks, overrides",
    [
        (1, ["learner.dtype=float32"]),
        (2, ["learner.dtype=bfloat16"]),
        (1, ["learner.dtype=bfloat16", "learner.offload_optimizer=true"]),
        (1, ["learner.dtype=bfloat16", LORA]),
        (2, ["learner.dtype=float32", "kl=reference"]),
    ],
)
def test_a_rank_keeps_what_the_plan_says(launch: Callable[..., Any], tiny_model, ranks, overrides):
    run = compose([*tiny_overrides(tiny_model), f"learner.ranks={ranks}", SMALL_BUCKET, *overrides])
    planned = rank_memory(run, shapes_at(str(tiny_model)))
    handles = launch(run.learner, tiny_model, ranks)
    if run.kl:
        ray.get([handle.keep_reference.remote(run.kl.offload) for handle in handles])
    shares = to_shares(make_samples(), ranks, 512, "shared")
    for version in range(2):
        ray.get([rank.step.remote([share], OBJECTIVE, version) for rank, share in zip(handles, shares, strict=True)])
    living = ray.get([handle.__ray_call__.remote(living_bytes) for handle in handles])
    assert planned.kept_bytes == pytest.approx(max(living), rel=0.001)
