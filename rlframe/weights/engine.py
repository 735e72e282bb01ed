"""The receiving end in vLLM's worker process: object references in, a loaded model out."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.model_executor.layers.quantization.base_config import QuantizeMethodBase
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

from rlframe.weights.publish import Chunk, Published


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
    """Loads checkpoint-named tensors in place from plasma, without a copy of its own."""

    init_info_cls = ObjectStoreInit
    update_info_cls = ObjectStoreUpdate

    def init_transfer_engine(self, init_info: ObjectStoreInit) -> None:
        import ray

        if not ray.is_initialized():
            ray.init(init_info.address, namespace=init_info.namespace, log_to_driver=False, logging_level="ERROR")
        self.holder = ray.get_actor(init_info.holder, namespace=init_info.namespace)

    def start_weight_update(self) -> None:
        initialize_layerwise_reload(self.model)

    def receive_weights(self, update_info: ObjectStoreUpdate) -> None:
        import ray

        published: Published = ray.get(self.holder.published.remote(update_info.version))
        arrived: set[str] = set()
        for ref in published.chunks:
            chunk: Chunk = ray.get(ref)
            tensors = _tensors(chunk)
            arrived.update(tensors)
            self.model.load_weights(list(tensors.items()))
        if missing := set(published.names) - arrived:
            raise RuntimeError(f"weights of version {update_info.version} came without {sorted(missing)}")

    def finish_weight_update(self) -> None:
        finalize_layerwise_reload(self.model, self.model_config)
        for layer in _sharing(self.model):
            layer.quant_method.process_weights_after_loading(layer)

    def shutdown(self) -> None:
        import ray

        ray.shutdown()


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


def _tensors(chunk: Chunk) -> dict[str, torch.Tensor]:
    """Views of a chunk's bytes, by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # plasma is read-only and nothing here writes: loaders copy out of it
        data = torch.from_numpy(chunk.data)
    tensors = {}
    for name, dtype_name, shape, offset in chunk.entries:
        dtype: torch.dtype = getattr(torch, dtype_name)
        size = torch.Size(shape).numel() * dtype.itemsize
        tensors[name] = data[offset : offset + size].view(dtype).view(shape)
    return tensors
