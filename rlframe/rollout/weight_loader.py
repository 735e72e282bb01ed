"""Loads weights in vLLM's worker process: references into the object store in, a model with new weights out."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from vllm.distributed.parallel_state import get_tp_group
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

from rlframe.model.checkpoint_names import model_on_meta, to_checkpoint
from rlframe.rollout.cpu import forget_packed_experts
from rlframe.rollout.rebuild import differing, rebuild
from rlframe.rollout.tied import prepare_tied_layers
from rlframe.weights.fingerprint import fingerprint

FINGERPRINTS = "fingerprints"  # key of the fingerprints beside the tensors of a bucket, which have names with dots


@dataclass
class ObjectStoreInit(WeightTransferInitInfo):
    """The address of the Ray cluster, and the actor that holds the references.

    A reference that travels inside another message than Ray's own is pinned for ever. So vLLM's messages carry only
    the holder's name, and the worker requests the references from the holder.
    """

    address: str
    namespace: str
    holder: str


@dataclass
class ObjectStoreUpdate(WeightTransferUpdateInfo):
    """The version to load; the holder raises where its version differs."""

    version: int


class ObjectStoreEngine(WeightTransferEngine[ObjectStoreInit, ObjectStoreUpdate]):
    """Rebuilds tensors from all ranks' shards in the object store, and loads the tensors under checkpoint names.

    Of a tensor-parallel group only the first worker reads the object store; the others receive the tensors from this
    worker over the group. So a group is one client of Ray, and on GPUs the tensors cross the host's bus once.
    """

    init_info_cls = ObjectStoreInit
    update_info_cls = ObjectStoreUpdate
    connected = False  # to Ray by this engine

    def init_transfer_engine(self, init_info: ObjectStoreInit) -> None:
        self.group: Any = get_tp_group()
        self.reads = self.group.rank_in_group == 0
        self.learner_model = model_on_meta(Path(self.model_config.model))  # for names and shapes
        self.checksums = ThreadPoolExecutor(1)  # verifies while the main thread loads
        self.pending: list[Future[set[str]]] = []  # verifications of the version that was loaded last
        self.changed: list[tuple[list[str], Tensor]] = []  # names; [names] bool: changed between the group's workers
        if self.reads:
            import ray

            if not ray.is_initialized():  # vLLM's Ray executor has connected its workers
                quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
                ray.init(init_info.address, namespace=init_info.namespace, **quiet)
                self.connected = True
            self.holder = ray.get_actor(init_info.holder, namespace=init_info.namespace)

    def start_weight_update(self) -> None:
        forget_packed_experts(self.model)
        initialize_layerwise_reload(self.model)

    def receive_weights(self, update_info: ObjectStoreUpdate) -> None:
        """Loads the version and starts the verification, which `differing` ends."""
        self.pending, self.changed = [], []
        model: Any = self.model
        arrived: set[str] = set()
        for tensors in self._read(update_info.version) if self.reads else self._receive():
            named = to_checkpoint(self.learner_model, tensors)
            arrived |= named.keys()
            model.load_weights(list(named.items()))
        if self.reads and (missing := set(self.names) - arrived):
            raise RuntimeError(f"weights of version {update_info.version} came without {sorted(missing)}")

    def finish_weight_update(self) -> None:
        finalize_layerwise_reload(self.model, self.model_config)
        prepare_tied_layers(self.model)

    def differing(self, fingerprints: dict[str, int]) -> set[str]:
        """Names of tensors that differ from the learner's; checksums come with the shards, not by `fingerprints`."""
        pending, self.pending = self.pending, []
        changed, self.changed = self.changed, []
        changed_in_group = {
            name for names, flags in changed for name, flag in zip(names, flags.tolist(), strict=True) if flag
        }
        return changed_in_group.union(*(verification.result() for verification in pending))

    def shutdown(self) -> None:
        import ray

        if self.connected:
            ray.shutdown()

    def _read(self, version: int) -> Iterator[dict[str, Tensor]]:
        """Bucket by bucket, tensors by the learner's names, each also sent to the group's other workers."""
        import ray

        snapshot: Any = ray.get(self.holder.published.remote(version))  # Snapshot
        self.names: list[str] = snapshot.names
        try:
            for shards in snapshot.read():
                tensors = rebuild(shards)
                self.pending.append(self.checksums.submit(differing, shards, tensors))
                yield self._send(tensors)
        finally:
            self._send({})  # ends `_receive`, also where this worker fails

    def _send(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """The tensors where the group's workers have them: on the device, unless the group is this worker alone."""
        if self.group.world_size == 1:
            return tensors
        on_device = {name: tensor.to(self.device) for name, tensor in tensors.items()}
        self.group.broadcast_tensor_dict({**on_device, FINGERPRINTS: _fingerprints(on_device)} if tensors else {})
        return on_device

    def _receive(self) -> Iterator[dict[str, Tensor]]:
        """The tensors of `_read`, as the group's first worker sends them."""
        while received := self.group.broadcast_tensor_dict():
            sent = received.pop(FINGERPRINTS)
            self.changed.append((list(received), sent != _fingerprints(received)))
            yield received


def _fingerprints(tensors: dict[str, Tensor]) -> Tensor:
    """[tensors] int64, on their device."""
    return torch.stack([fingerprint(tensor) for tensor in tensors.values()])
