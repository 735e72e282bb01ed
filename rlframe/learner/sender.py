"""The learner's end of vLLM's own transports between GPUs (nccl, ipc): the learner sends, engines receive.

https://docs.vllm.ai/en/latest/training/weight_transfer/
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from ray.actor import ActorHandle

    from rlframe.learner.source import Zero3Source


def sender(
    backend: Literal["nccl", "ipc"],
    engines: list[ActorHandle],
    source: Zero3Source,
    *,
    rank: int,
    address: str,
    engine_workers: int,
) -> Any:
    """vLLM's trainer-side engine for this rank, after the rendezvous with every engine's workers."""
    from vllm.distributed.weight_transfer import RayVLLMWeightSyncClient, WeightTransferTrainerFactory
    from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerInitInfo
    from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo

    host, _, port = address.rpartition(":")
    match backend:
        case "nccl":
            init: Any = NCCLTrainerInitInfo(
                rank=rank, master_address=host, master_port=int(port), world_size=1 + engine_workers
            )
        case "ipc":
            init = IPCTrainerInitInfo(rank=rank)
    client: Any = RayVLLMWeightSyncClient(engines)
    weights: Any = source  # has the methods of vLLM's WeightSource; source.py says why it does not inherit
    return WeightTransferTrainerFactory.trainer_init(init, client=client, source=weights)
