"""Repairs tied embeddings and heads of vLLM's model after a reload of weights."""

from __future__ import annotations

from typing import Any

import torch
from vllm.model_executor.layers.quantization.base_config import QuantizeMethodBase
from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding


def prepare_tied_layers(model: torch.nn.Module) -> None:
    """Prepares embeddings and heads whose weight is an earlier layer's, for example a head tied to the embeddings.

    vLLM's reload prepares a layer again once the layer's own weights have come. A tied head receives none, and on a
    CPU computes with a packed copy, which would keep the old weights. Experts that share a router's bias were prepared
    with their own weights: some of vLLM's kernels reorder expert weights in place, and must not do so twice.
    """
    earlier: set[int] = set()
    for layer in model.modules():
        if not isinstance(layer, VocabParallelEmbedding):  # also the class of heads
            continue
        parameters = {id(parameter) for parameter in layer.parameters(recurse=False)}
        method: Any = getattr(layer, "quant_method", None)
        if parameters & earlier and isinstance(method, QuantizeMethodBase):
            method.process_weights_after_loading(layer)
        earlier |= parameters
