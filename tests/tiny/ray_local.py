"""A Ray cluster of this machine for the actors of tests."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import psutil
import ray


def start_ray(cpus: int, store_mib: int = 100) -> None:
    """Starts a cluster, on a busy machine at the second try: Ray gives a node 30 s to start."""
    settings: dict[str, Any] = {"num_cpus": cpus, "include_dashboard": False, "log_to_driver": False}
    settings["object_store_memory"] = store_mib << 20
    before = {*psutil.Process().children(recursive=True)}
    try:
        ray.init("local", **settings)
    except Exception as error:  # Ray raises no class of its own
        if "timed out during startup" not in str(error):
            raise
        ray.shutdown()
        # Ray keeps the processes of the late node until this process ends.
        for process in {*psutil.Process().children(recursive=True)} - before:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        ray.init("local", **settings)
