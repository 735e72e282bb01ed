"""The ranks that engines' workers take, by vLLM's own code for worker processes, and errors of engines."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from rlframe.weights.client import EngineClient


def client(engines: int, workers: int) -> EngineClient:
    return EngineClient({f"rollout-{index}": None for index in range(engines)}, workers=workers, timeout_s=1.0)


def worker_ranks(engines: int, tensor: int, pipeline: int, data: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rank of every worker process, as vLLM's worker computes it from the client's init."""
    from vllm.distributed.weight_transfer import nccl_common

    taken: list[int] = []

    def meet(address: str, port: int, rank: int, world_size: int, device: Any) -> None:
        assert (address, port, world_size) == ("10.0.0.1", 29500, 1 + engines * tensor * pipeline * data)
        taken.append(rank)

    monkeypatch.setattr(nccl_common, "stateless_init_process_group", meet)
    monkeypatch.setattr("torch.accelerator.current_device_index", lambda: 0)
    trainer_init = nccl_common.worker_init_payload(
        nccl_common.NCCLWeightTransferInitInfo(
            master_address="10.0.0.1",
            master_port=29500,
            rank_offset=1,
            world_size=1 + engines * tensor * pipeline * data,
        )
    )
    for init in client(engines, tensor * pipeline * data).inits(trainer_init):
        for replica in range(data):
            for rank in range(tensor * pipeline):
                config: Any = SimpleNamespace(
                    data_parallel_index=replica, world_size=tensor * pipeline, rank=rank
                )  # of vLLM's ParallelConfig, as far as the function reads it
                nccl_common.worker_init_process_group(nccl_common.NCCLWeightTransferInitInfo(**init), config)
    return taken


@pytest.mark.parametrize("engines", [1, 2, 3, 4])
@pytest.mark.parametrize("tensor", [1, 2, 3, 4])
@pytest.mark.parametrize("pipeline, data", [(1, 1), (2, 1), (1, 2), (2, 3)])
def test_every_worker_has_a_rank_of_its_own(
    engines: int, tensor: int, pipeline: int, data: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranks = worker_ranks(engines, tensor, pipeline, data, monkeypatch)
    assert ranks == list(range(1, 1 + engines * tensor * pipeline * data))


def test_an_engine_of_two_workers_begins_two_ranks_after_the_engine_before() -> None:
    inits = client(3, 2).inits({"rank_offset": 1, "world_size": 7})
    assert [init["rank_offset"] for init in inits] == [1, 3, 5]


def test_an_init_without_ranks_is_the_same_for_every_engine() -> None:
    assert client(2, 1).inits({"packed": False}) == [{"packed": False}] * 2


def test_the_client_has_the_methods_of_vllm_s() -> None:
    from vllm.distributed.weight_transfer.base import VLLMWeightSyncClient

    assert isinstance(client(1, 1), VLLMWeightSyncClient)
