"""A vLLM plugin, which each process of vLLM loads by the entry point `vllm.general_plugins`."""

from __future__ import annotations

# weights.backend -> the name of our weight-transfer engine in vLLM, with its module and class
BACKENDS = {"object_store": "object_store", "nccl": "rlframe_nccl", "ipc": "rlframe_ipc"}
ENGINES = {
    "object_store": ("rlframe.rollout.weight_loader", "ObjectStoreEngine"),
    "rlframe_nccl": ("rlframe.rollout.weight_receiver", "NCCLReceiver"),
    "rlframe_ipc": ("rlframe.rollout.weight_receiver", "IPCReceiver"),
}
WORKER_EXTENSION = "rlframe.rollout.verified.VerifiedWorker"


def register() -> None:
    """Adds our backends to vLLM's weight transfer; a second call does nothing."""
    from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

    for backend, (module, name) in ENGINES.items():
        if backend not in WeightTransferEngineFactory._registry:
            WeightTransferEngineFactory.register_engine(backend, module, name)
