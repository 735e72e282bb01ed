"""A vLLM plugin, which each process of vLLM loads by the entry point `vllm.general_plugins`."""

from __future__ import annotations

BACKEND = "object_store"


def register() -> None:
    """Adds the backend `object_store` to vLLM's weight transfer; a second call does nothing."""
    from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

    if BACKEND not in WeightTransferEngineFactory._registry:
        WeightTransferEngineFactory.register_engine(BACKEND, "rlframe.rollout.weight_loader", "ObjectStoreEngine")
