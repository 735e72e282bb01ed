"""vLLM's own GPU transports (nccl, ipc) over the same source of weights: the learner sends, engines receive."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from rlframe.actors.calls import numbered, wait
from rlframe.types import Loaded

if TYPE_CHECKING:
    from ray.actor import ActorHandle

    from rlframe.learner.source import Zero3Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Broadcast:
    """One version of the weights that the learner's ranks are ready to send."""

    version: int
    ranks: list[ActorHandle]

    def deliver(self, engines: dict[str, ActorHandle], timeout_s: float) -> dict[str, Loaded]:
        """Pauses the engines, lets the ranks send, and lets the engines go on with the new version. Raises Stalled."""
        bound = "cluster.stall_timeout_s"
        began = time.monotonic()
        wait({name: engine.pause.remote() for name, engine in engines.items()}, "pause", timeout_s, bound)
        sending = numbered("learner", [rank.send.remote() for rank in self.ranks])
        wait(sending, f"send version {self.version}", timeout_s, bound)
        going_on = {name: engine.resume.remote(self.version) for name, engine in engines.items()}
        wait(going_on, "resume", timeout_s, bound)
        stall_s = time.monotonic() - began
        return {name: Loaded(stall_s=stall_s, differing=[]) for name in engines}


def sender(
    backend: Literal["nccl", "ipc"],
    engines: list[ActorHandle],
    source: Zero3Source,
    *,
    rank: int,
    address: str,
    engine_workers: int,
) -> Any:
    """vLLM's trainer-side engine for this rank, after its rendezvous with every engine's workers.

    https://docs.vllm.ai/en/latest/training/weight_transfer/
    """
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
    weights: Any = source  # has WeightSource's methods; see there why it is no subclass
    return WeightTransferTrainerFactory.trainer_init(init, client=client, source=weights)
