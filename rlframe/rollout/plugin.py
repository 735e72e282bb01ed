"""A vLLM plugin, which each process of vLLM loads by the entry point `vllm.general_plugins`."""

from __future__ import annotations

import multiprocessing
import os

from rlframe.sandbox.kernel import die_with_parent

ENGINE = "RLFRAME_ENGINE"  # environment variable: name of the engine to which a process of vLLM belongs
# weights.backend -> the name of our weight-transfer engine in vLLM, with its module and class
BACKENDS = {"object_store": "object_store", "nccl": "rlframe_nccl", "ipc": "rlframe_ipc"}
ENGINES = {
    "object_store": ("rlframe.rollout.weight_loader", "ObjectStoreEngine"),
    "rlframe_nccl": ("rlframe.rollout.weight_receiver", "NCCLReceiver"),
    "rlframe_ipc": ("rlframe.rollout.weight_receiver", "IPCReceiver"),
}
WORKER_EXTENSION = "rlframe.rollout.verified.VerifiedWorker"


def register() -> None:
    """Adds our backends to vLLM's weight transfer; a second call does nothing.

    A process of an engine of ours ends with its parent, even if the parent is killed and this process is stopped.
    """
    if ENGINE in os.environ and (parent := multiprocessing.parent_process()) is not None and parent.pid:
        die_with_parent(parent.pid)
    from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

    for backend, (module, name) in ENGINES.items():
        if backend not in WeightTransferEngineFactory._registry:
            WeightTransferEngineFactory.register_engine(backend, module, name)
