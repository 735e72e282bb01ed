"""vLLM's own weight-transfer engines between GPUs, with a fingerprint of each tensor that arrives."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from vllm.distributed.weight_transfer.base import WeightTransferEngine
from vllm.distributed.weight_transfer.ipc_engine import IPCWeightTransferEngine
from vllm.distributed.weight_transfer.nccl_engine import NCCLWeightTransferEngine

from rlframe.rollout.cpu import forget_packed_experts
from rlframe.rollout.tied import prepare_tied_layers
from rlframe.weights.fingerprint import fingerprint, read_fingerprints


class FingerprintedModel:
    """A model that remembers the fingerprint of each tensor before it loads the tensor."""

    def __init__(self, model: nn.Module, fingerprints: dict[str, Tensor]) -> None:
        self.model: Any = model
        self.fingerprints = fingerprints

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> Any:
        named = list(weights)
        self.fingerprints |= {name: fingerprint(tensor) for name, tensor in named}
        loaded = self.model.load_weights(named)
        if torch.cuda.is_available():
            # vLLM may receive the next chunk on one stream while another stream still copies from the same buffer.
            torch.cuda.synchronize()
        return loaded


class Fingerprinted(WeightTransferEngine):
    """Adds fingerprints to an engine that hands whole tensors to the model's `load_weights`."""

    def start_weight_update(self) -> None:
        self.fingerprints: dict[str, Tensor] = {}  # of the version that is being loaded, by checkpoint name
        forget_packed_experts(self.model)
        super().start_weight_update()  # pyright: ignore[reportAbstractUsage] - vLLM's class follows in the bases

    def receive_weights(self, update_info: Any) -> None:
        model: Any = self.model
        self.model: Any = FingerprintedModel(model, self.fingerprints)
        try:
            super().receive_weights(update_info)  # pyright: ignore[reportAbstractUsage]
        finally:
            self.model = model

    def finish_weight_update(self) -> None:
        super().finish_weight_update()  # pyright: ignore[reportAbstractUsage]
        prepare_tied_layers(self.model)

    def differing(self, fingerprints: dict[str, int]) -> set[str]:
        """Names of tensors that differ from `fingerprints`, or that did not arrive."""
        arrived = read_fingerprints(self.fingerprints)
        return {name for name in fingerprints.keys() | arrived.keys() if fingerprints.get(name) != arrived.get(name)}


class NCCLReceiver(Fingerprinted, NCCLWeightTransferEngine):
    """Receives tensors that rank 0 broadcasts."""


class IPCReceiver(Fingerprinted, IPCWeightTransferEngine):
    """Reads tensors from memory that the rank on the same GPU shares."""
