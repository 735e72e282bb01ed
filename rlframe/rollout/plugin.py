"""What vLLM loads in each of its processes, by the entry point `vllm.general_plugins`."""

from __future__ import annotations

BACKEND = "object_store"


def register() -> None:
    """Makes the backend `object_store` known to vLLM's weight transfer; safe to call again."""
    from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

    if BACKEND not in WeightTransferEngineFactory._registry:
        WeightTransferEngineFactory.register_engine(BACKEND, "rlframe.rollout.weight_loader", "ObjectStoreEngine")
