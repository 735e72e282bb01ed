"""Loads weights in vLLM's worker process: references into the object store in, a model with new weights out."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.model_executor.layers.quantization.base_config import QuantizeMethodBase
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

from rlframe.model.checkpoint_names import to_checkpoint
from rlframe.rollout.cpu import forget_packed_experts
from rlframe.rollout.rebuild import differing, rebuild


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
    """Rebuilds tensors from all ranks' shards in the object store, and loads the tensors under checkpoint names."""

    init_info_cls = ObjectStoreInit
    update_info_cls = ObjectStoreUpdate

    def init_transfer_engine(self, init_info: ObjectStoreInit) -> None:
        import ray

        if not ray.is_initialized():
            quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
            ray.init(init_info.address, namespace=init_info.namespace, **quiet)
        self.holder = ray.get_actor(init_info.holder, namespace=init_info.namespace)
        self.learner_model = _without_storage(self.model_config.model)
        self.checksums = ThreadPoolExecutor(1)  # verifies while the main thread loads
        self.pending: list[Future[set[str]]] = []  # verifications of the version that is being loaded

    def start_weight_update(self) -> None:
        forget_packed_experts(self.model)
        initialize_layerwise_reload(self.model)

    def receive_weights(self, update_info: ObjectStoreUpdate) -> None:
        """Loads the version and starts the verification, which `finish_weight_update` ends."""
        import ray

        snapshot: Any = ray.get(self.holder.published.remote(update_info.version))  # Snapshot
        arrived: set[str] = set()
        self.pending = []
        for shards in snapshot.read():
            tensors = rebuild(shards)
            self.pending.append(self.checksums.submit(differing, shards, tensors))
            named = to_checkpoint(self.learner_model, tensors)
            arrived |= named.keys()
            model: Any = self.model
            model.load_weights(list(named.items()))
        if missing := set(snapshot.names) - arrived:
            raise RuntimeError(f"weights of version {update_info.version} came without {sorted(missing)}")

    def finish_weight_update(self) -> None:
        """Completes the model, and reports to the holder which tensors differ from the learner's."""
        import ray

        finalize_layerwise_reload(self.model, self.model_config)
        for layer in _tied_layers(self.model):
            layer.quant_method.process_weights_after_loading(layer)
        # Checksums run on while layers are completed. The engine samples nothing before this report.
        pending, self.pending = self.pending, []
        ray.get(self.holder.report.remote(set().union(*(verification.result() for verification in pending))))

    def shutdown(self) -> None:
        import ray

        ray.shutdown()


def _without_storage(path: str) -> torch.nn.Module:
    """The learner's model, for names and shapes."""
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(
            AutoConfig.from_pretrained(path, trust_remote_code=False), trust_remote_code=False
        )


def _tied_layers(model: torch.nn.Module) -> list[Any]:
    """Layers whose weight is an earlier layer's, for example a head that is tied to the embeddings.

    vLLM's reload prepares a layer again once the layer's own weights have come. A tied head receives none, and on a
    CPU computes with a packed copy, which would keep the old weights.
    """
    earlier: set[int] = set()
    tied = []
    for layer in model.modules():
        parameters = {id(parameter) for parameter in layer.parameters(recurse=False)}
        if parameters & earlier and isinstance(getattr(layer, "quant_method", None), QuantizeMethodBase):
            tied.append(layer)
        earlier |= parameters
    return tied
