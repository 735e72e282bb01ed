"""`VerifiedWorker`: the worker process's report on weights that it has loaded."""

from __future__ import annotations

from typing import Any


class VerifiedWorker:
    """Extends vLLM's worker by a method for `collective_rpc`, as vLLM's `worker_extension_cls`."""

    weight_transfer_engine: Any  # of this package: weight_loader.py, weight_receiver.py

    def differing_weights(self, fingerprints: dict[str, int]) -> list[str]:
        """Names of tensors of the last loaded version that differ from the learner's.

        `fingerprints`: of the learner's tensors by name, for nccl and ipc; object_store has checksums beside tensors.
        """
        return sorted(self.weight_transfer_engine.differing(fingerprints))
