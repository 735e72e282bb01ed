"""`Sender`: the learner's end of vLLM's transports between GPUs (nccl, ipc).

https://docs.vllm.ai/en/latest/training/weight_transfer/
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any, TypeVar

from rlframe.weights.fingerprint import fingerprint, read_fingerprints

if TYPE_CHECKING:
    from torch import Tensor

    from rlframe.learner.source import Zero3Source
    from rlframe.weights.client import EngineClient
    from rlframe.weights.transport import DeviceBackend

Result = TypeVar("Result")


class Sender:
    """vLLM's trainer engine of this rank, over the source of ZeRO-3. Every rank has a sender, in lockstep.

    Rank 0 sends and calls the engines. The other ranks iterate the source, because gathering is a collective.
    """

    def __init__(
        self,
        backend: DeviceBackend,
        client: EngineClient,
        source: Zero3Source,
        *,
        rank: int,
        address: str,
        chunk_bytes: int,
    ) -> None:
        """Meets the engines' workers at `address`, host:port. `chunk_bytes`: of tensors that travel together."""
        from vllm.distributed.weight_transfer import WeightTransferTrainerFactory
        from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerInitInfo
        from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo

        host, _, port = address.rpartition(":")
        match backend:
            case "nccl":
                init: Any = NCCLTrainerInitInfo(
                    rank=rank,
                    master_address=host,
                    master_port=int(port),
                    world_size=1 + len(client.engines) * client.workers,
                    packed_buffer_size_bytes=chunk_bytes,
                )
            case "ipc":  # every rank shares a buffer with the worker on the same GPU, chunk after chunk
                buffer_bytes = max(chunk_bytes, *(meta.nbytes for meta in source.metadata()))
                init = IPCTrainerInitInfo(rank=rank, packed=True, packed_buffer_size_bytes=buffer_bytes)
        self._client = client
        self._thread = ThreadPoolExecutor(1, "sender")
        self._source = FingerprintedSource(source) if rank == 0 else source
        weights: Any = self._source  # has the methods of vLLM's WeightSource; source.py says why it does not inherit
        self._trainer: Any = self._run(
            lambda: WeightTransferTrainerFactory.trainer_init(init, client=client, source=weights)
        )

    def send(self) -> dict[str, int]:
        """Sends every tensor -> on rank 0 tensor name -> fingerprint, on the other ranks nothing.

        Raises the error of an engine, and Stalled with the names of engines that do not answer in time.
        """
        self._run(self._trainer.send_weights)
        return self._source.take() if isinstance(self._source, FingerprintedSource) else {}

    def close(self) -> None:
        """Leaves the group of the engines that were met."""
        self._trainer.shutdown()

    def _run(self, function: Callable[[], Result]) -> Result:
        """The function's result, or an engine's error as soon as the client knows the error.

        After an engine's error the function waits in NCCL for ever, so its thread is abandoned.
        """
        task = self._thread.submit(function)
        failure: Future[Any] = self._client.failure
        ended: list[Future[Any]] = [task, failure]
        wait(ended, return_when=FIRST_COMPLETED)
        return failure.result() if failure.done() else task.result()


class FingerprintedSource:
    """Adds the fingerprint of each yielded tensor to a source."""

    def __init__(self, source: Zero3Source) -> None:
        self.source = source
        self._fingerprints: dict[str, Tensor] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.source, name)

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        for name, tensor in self.source:
            self._fingerprints[name] = fingerprint(tensor)
            yield name, tensor

    def take(self) -> dict[str, int]:
        """Name -> fingerprint of the last iteration; a second call returns nothing."""
        fingerprints, self._fingerprints = self._fingerprints, {}
        return read_fingerprints(fingerprints)
