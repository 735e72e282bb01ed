"""The receiving end in vLLM's worker process: object references in, a loaded model out."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.model_executor.layers.fused_moe.fused_moe_method_base import FusedMoEMethodBase
from vllm.model_executor.layers.quantization.base_config import QuantizeMethodBase
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload
from vllm.platforms import current_platform

from rlframe.model.checkpoint_names import to_checkpoint
from rlframe.weights.publish import Snapshot
from rlframe.weights.slices import differing, rebuild


@dataclass
class ObjectStoreInit(WeightTransferInitInfo):
    """Where the Ray cluster is, and which actor holds the references.

    A reference that travels inside another message than Ray's own is pinned for ever, so vLLM's messages carry
    only the holder's name, and the worker asks it for the references.
    """

    address: str
    namespace: str
    holder: str


@dataclass
class ObjectStoreUpdate(WeightTransferUpdateInfo):
    """The version to load; the holder refuses another than the one it holds."""

    version: int


class ObjectStoreEngine(WeightTransferEngine[ObjectStoreInit, ObjectStoreUpdate]):
    """Rebuilds tensors from all ranks' slices in plasma and loads them under checkpoint names."""

    init_info_cls = ObjectStoreInit
    update_info_cls = ObjectStoreUpdate

    def init_transfer_engine(self, init_info: ObjectStoreInit) -> None:
        import ray

        if not ray.is_initialized():
            ray.init(init_info.address, namespace=init_info.namespace, log_to_driver=False, logging_level="ERROR")
        self.holder = ray.get_actor(init_info.holder, namespace=init_info.namespace)
        self.learners = _without_data(self.model_config.model)
        self.checksums = ThreadPoolExecutor(1)  # while the main thread loads
        self.found_differing: list[Future[set[str]]] = []  # in the version that is being loaded

    def start_weight_update(self) -> None:
        _forget_packed_experts(self.model)
        initialize_layerwise_reload(self.model)

    def receive_weights(self, update_info: ObjectStoreUpdate) -> None:
        """Loads what came; `finish_weight_update` tells whether it is what the learner holds."""
        import ray

        snapshot: Snapshot = ray.get(self.holder.published.remote(update_info.version))
        arrived: set[str] = set()
        self.found_differing = []
        for parts in snapshot.read():
            tensors = rebuild(parts)
            self.found_differing.append(self.checksums.submit(differing, parts, tensors))
            named = to_checkpoint(self.learners, tensors)
            arrived |= named.keys()
            self.model.load_weights(list(named.items()))
        if missing := set(snapshot.shares[0].names) - arrived:
            raise RuntimeError(f"weights of version {update_info.version} came without {sorted(missing)}")

    def finish_weight_update(self) -> None:
        """Makes the model whole, and tells the holder which tensors are not what the learner holds."""
        import ray

        finalize_layerwise_reload(self.model, self.model_config)
        for layer in _sharing(self.model):
            layer.quant_method.process_weights_after_loading(layer)
        # Last: checksums run on while layers are made ready, and the engine draws nothing before it has heard of them.
        found, self.found_differing = self.found_differing, []
        ray.get(self.holder.report.remote(set().union(*(of_chunk.result() for of_chunk in found))))

    def shutdown(self) -> None:
        import ray

        ray.shutdown()


def _without_data(path: str) -> torch.nn.Module:
    """The model as the learner has it, for its names and shapes."""
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(path))


def _forget_packed_experts(model: torch.nn.Module) -> None:
    """Lets experts on a CPU be packed anew for its kernels.

    vLLM packs them when it makes their kernel, and takes a layer that has one for done: it would compute with new
    values in the old kernel's order. On a GPU the kernel must stay: graphs have captured its addresses.
    """
    if not current_platform.is_cpu():
        return
    for layer in model.modules():
        if isinstance(method := getattr(layer, "quant_method", None), FusedMoEMethodBase):
            method.moe_kernel = None


def _sharing(model: torch.nn.Module) -> list[torch.nn.Module]:
    """Layers whose weight another layer loads: a head that is tied to the embeddings.

    vLLM's reload prepares a layer anew once its own weights have come. To a tied head none come, so on a CPU, where
    it computes with a packed copy, it would go on with the old ones.
    """
    seen: set[int] = set()
    sharing = []
    for layer in model.modules():
        own = {id(parameter) for parameter in layer.parameters(recurse=False)}
        if own & seen and isinstance(getattr(layer, "quant_method", None), QuantizeMethodBase):
            sharing.append(layer)
        seen |= own
    return sharing
