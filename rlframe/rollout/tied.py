"""Layers of vLLM's model that share an earlier layer's weight, after a reload."""

from __future__ import annotations

from typing import Any

import torch
from vllm.model_executor.layers.quantization.base_config import QuantizeMethodBase


def prepare_tied_layers(model: torch.nn.Module) -> None:
    """Prepares layers whose weight is an earlier layer's, for example a head that is tied to the embeddings.

    vLLM's reload prepares a layer again once the layer's own weights have come. A tied head receives none, and on a
    CPU computes with a packed copy, which would keep the old weights.
    """
    earlier: set[int] = set()
    for layer in model.modules():
        parameters = {id(parameter) for parameter in layer.parameters(recurse=False)}
        method: Any = getattr(layer, "quant_method", None)
        if parameters & earlier and isinstance(method, QuantizeMethodBase):
            method.process_weights_after_loading(layer)
        earlier |= parameters
