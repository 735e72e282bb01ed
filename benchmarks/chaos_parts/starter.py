"""`ChaosStarter`: starts a run's actors with engines that need no model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.chaos_parts.engine import ChaosEngine
from rlframe.cluster.engines import EngineActors
from rlframe.cluster.placement import Slot
from rlframe.cluster.starter import Starter

if TYPE_CHECKING:
    from rlframe.config.run import RunConfig


class ChaosEngines(EngineActors):
    """Makes engines without a model."""

    def engine_class(self, slot: Slot) -> tuple[type, tuple[Any, ...]]:
        return ChaosEngine, (self.run.rollout.slots,)


class ChaosStarter(Starter):
    """Starts a run's actors, with engines that need no model."""

    def __init__(self, run: RunConfig, model_path: Path, namespace: str, *arguments: Any) -> None:
        super().__init__(run, model_path, namespace, *arguments)
        self.engines = ChaosEngines(run, model_path, namespace, self.handles)
