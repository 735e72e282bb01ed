"""An engine takes weights by ipc from two ranks: vLLM's classes over a stand-in for CUDA's memory (tests/tiny/ipc.py).

Learner and engine take turns as in a colocated run; on a CPU nothing leaves a device.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import torch

from rlframe.cluster import start as cluster
from rlframe.config.run import RunConfig
from rlframe.errors import LearnerLost
from rlframe.weights.turns import SharedDevices
from tests.conftest import compose, tiny_overrides
from tests.tiny import ipc
from tests.tiny.stubbed import start_with_ranks
from tests.weights.test_sync import disagreement, nudge, sync

WORKER = "tests.tiny.ipc_worker.StubbedWorker"


@pytest.fixture(scope="module")
def run(tiny_model: Path) -> RunConfig:
    settings = ["placement=colocated", f"+rollout.engine_args.worker_cls={WORKER}"]
    run = compose([*tiny_overrides(tiny_model), *settings])
    weights = run.weights.model_copy(update={"backend": "ipc"})  # refused without GPUs
    return run.model_copy(update={"weights": weights})


@pytest.fixture(scope="module")
def gpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gpus")


@pytest.fixture(scope="module")
def actors(run: RunConfig, gpus: Path) -> Iterator[cluster.Actors]:
    ipc.put_on("engine", "gpu-0", gpus)
    with start_with_ranks(ipc.StubbedRank, run, **{ipc.FOLDER: str(gpus)}) as actors:
        yield actors


@pytest.mark.parametrize("gpu", ["gpu-0", "gpu-1"])
@pytest.mark.parametrize("chunk_bytes", [1 << 20, 1 << 16])  # the model has 400 kB: all in one chunk, or many chunks
def test_a_worker_reads_the_memory_of_the_rank_on_its_gpu(
    actors: cluster.Actors, run: RunConfig, gpus: Path, gpu: str, chunk_bytes: int
) -> None:
    ipc.put_on("engine", gpu, gpus)
    transport: Any = actors.weights.transport
    transport.chunk_bytes, transport.members = chunk_bytes, []  # the ranks meet the engine anew
    nudge(actors)
    actors.weights.turns.begin_learner()
    assert disagreement_of_a_sleeping_engine(actors, run)
    assert sync(actors).repaired == []
    assert disagreement(actors, run) < 2e-3


def disagreement_of_a_sleeping_engine(actors: cluster.Actors, run: RunConfig) -> str:
    with pytest.raises(RuntimeError, match="rollout-0 sleeps, because the learner has its GPU") as error:
        disagreement(actors, run)
    return str(error)


def round_trip(_: Any) -> list[Any]:
    """What vLLM's other processes get of a handle of GPU memory, by its own messages; a handle is as torch makes it."""
    from vllm.v1.serial_utils import MsgpackDecoder, MsgpackEncoder

    storage: Any = torch.storage.TypedStorage
    handle = (
        torch.Tensor,
        torch.Size([4]),
        (1,),
        0,
        storage,
        torch.uint8,
        0,
        b"handle",
        4,
        0,
        False,
        b"",
        0,
        b"",
        True,
    )
    update = {"ipc_handles": {"gpu-0": handle}}
    return MsgpackDecoder().decode(MsgpackEncoder().encode(update))["ipc_handles"]["gpu-0"]


def test_handles_of_gpu_memory_pass_through_vllm_s_messages(actors: cluster.Actors) -> None:
    engine = actors.rollouts.replicas["rollout-0"].handle
    kind, shape, *_, handle = ray.get(engine.__ray_call__.remote(round_trip))[:8]
    assert (kind, list(shape), handle) == (torch.Tensor, [4], b"handle")


def test_a_run_whose_turns_are_of_cpus_frees_nothing(actors: cluster.Actors) -> None:
    assert isinstance(actors.weights.turns, SharedDevices)
    metrics = actors.weights.turns.metrics()
    assert (metrics["memory/learner_freed_gib"], metrics["memory/engines_freed_gib"]) == (0.0, 0.0)


def test_a_worker_on_a_gpu_without_a_rank_finds_no_memory(actors: cluster.Actors, gpus: Path) -> None:
    ipc.put_on("engine", "gpu-2", gpus)
    nudge(actors)
    with pytest.raises(LearnerLost, match=r"(?s)IPC handle not found for GPU UUID gpu-2.*\['gpu-0', 'gpu-1'\]"):
        sync(actors)
