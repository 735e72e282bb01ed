"""A rank whose state leaves the device and comes back goes on to the last bit, and leaves no memory behind.

On a CPU the state moves from one part of the host's memory to another, by the code that empties a GPU.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch

from rlframe.learner.rank import LearnerRank
from rlframe.learner.sleep import relocate
from tests.conftest import compose, tiny_overrides
from tests.learner.conftest import Launch
from tests.tiny.learner import differing, load, logprobs, make_samples, reference_logprobs, save, state, step

CPU = torch.device("cpu")
LORA = "learner.lora={rank: 3, alpha: 6, targets: [q_proj, down_proj]}"


def leave(rank: LearnerRank, keep_parameters: bool) -> None:
    rank.sleeper.leave(keep_parameters=keep_parameters)


def come_back(rank: LearnerRank) -> None:
    rank.sleeper.come_back()


def watch(rank: LearnerRank) -> None:
    """Remembers the memory of everything that a rank keeps on its device."""
    from torch.multiprocessing.reductions import StorageWeakRef

    optimizer = rank.optimizer
    tensors = {
        **{name: parameter.ds_tensor for name, parameter in rank.engine.module.named_parameters()},
        **{f"master {index}": flat for index, flat in enumerate(optimizer.fp32_partitioned_groups_flat)},
        **{
            f"{kind} {index}": value
            for index, state in enumerate(optimizer.optimizer.state.values())
            for kind, value in state.items()
            if isinstance(value, torch.Tensor)
        },
        **{f"reference {name}": tensor for name, tensor in (rank.reference.tensors if rank.reference else {}).items()},
        "gradients": optimizer.grad_partitions_flat_buffer,
        **{f"bucket {dtype}": bucket.buffer for dtype, bucket in optimizer.ipg_buckets.items()},
    }
    memory = {name: StorageWeakRef(tensor.untyped_storage()) for name, tensor in tensors.items() if tensor.ndim}
    rank.watched = memory  # type: ignore[attr-defined]


def in_use(rank: LearnerRank) -> list[str]:
    """Names of the watched tensors whose memory somebody still holds."""
    watched: Any = rank.watched  # type: ignore[attr-defined]
    return [name for name, storage in watched.items() if not storage.expired()]


def call(handles: list[Any], function: Any, *arguments: Any) -> list[Any]:
    return ray.get([handle.__ray_call__.remote(function, *arguments) for handle in handles])


@pytest.mark.parametrize(
    "settings, ranks",
    [
        pytest.param(["learner.dtype=bfloat16"], 2, id="AdamW in bfloat16"),
        pytest.param(["learner.dtype=float32"], 1, id="parameters that are the master weights"),
        pytest.param(["learner.dtype=bfloat16", "learner.optimizer=muon"], 2, id="Muon"),
        pytest.param(["learner.dtype=bfloat16", LORA], 2, id="adapters"),
    ],
)
def test_steps_after_sleep_equal_steps_without_to_the_last_bit(
    settings: list[str], ranks: int, tiny_model: Path, launch: Launch, tmp_path: Path
) -> None:
    learner = launch(compose([*tiny_overrides(tiny_model), "learner.lr=0.01", *settings]).learner, tiny_model, ranks)
    ray.get([handle.keep_reference.remote(False) for handle in learner])
    samples = make_samples()
    initial = reference_logprobs(learner, samples)
    step(learner, 0)
    save(learner, tmp_path / "awake" / "learner", tmp_path / "awake" / "export")
    step(learner, 1)
    uninterrupted = state(learner)
    load(learner, tmp_path / "awake" / "learner")
    expected = logprobs(learner, samples)
    call(learner, watch)
    call(learner, leave, True)
    assert equal(logprobs(learner, samples), expected)  # parameters have stayed
    call(learner, leave, False)
    assert call(learner, in_use) == [[]] * ranks
    save(learner, tmp_path / "asleep" / "learner", tmp_path / "asleep" / "export")
    files = [sorted((tmp_path / name).rglob("*.safetensors")) for name in ("awake", "asleep")]
    assert len(files[0]) >= 3 * ranks  # of policy, reference and export
    assert all(one.read_bytes() == other.read_bytes() for one, other in zip(*files, strict=True))
    call(learner, come_back)
    step(learner, 1)
    assert differing(uninterrupted, state(learner)) == []
    assert equal(initial, reference_logprobs(learner, samples))


def equal(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return all(np.array_equal(values, others) for values, others in zip(one, other, strict=True))


def test_a_rank_on_a_cpu_keeps_its_state_and_frees_nothing(tiny_model: Path, launch: Launch) -> None:
    (rank,) = launch(compose(tiny_overrides(tiny_model)).learner, tiny_model, 1)

    def addresses(rank: LearnerRank) -> list[int]:
        return [parameter.ds_tensor.data_ptr() for parameter in rank.engine.module.parameters()]

    before = call([rank], addresses)
    assert ray.get(rank.sleep.remote(keep_parameters=False)) == 0
    ray.get(rank.wake.remote())
    assert call([rank], addresses) == before
    assert ray.get(rank.free_bytes.remote()) == 0


def test_views_of_one_storage_move_together() -> None:
    buffer = torch.arange(6.0)
    head, tail, alone = buffer[:2], buffer[2:].view(2, 2), torch.ones(3)
    old = buffer.data_ptr()
    relocate([head, buffer, tail, alone, head, torch.empty(0)], CPU)
    assert buffer.data_ptr() != old
    tail[1, 0] = 40.0
    assert buffer.tolist() == [0, 1, 2, 3, 40, 5] and head.tolist() == [0, 1] and alone.tolist() == [1, 1, 1]
    assert head.untyped_storage().data_ptr() == tail.untyped_storage().data_ptr() == buffer.data_ptr()
