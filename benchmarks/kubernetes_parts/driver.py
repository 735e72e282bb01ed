"""The driver of a run on pods: the `rlframe` command, with timed engines whose speed a file tells."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from benchmarks.chaos_parts.engine import ChaosEngine
from benchmarks.chaos_parts.starter import ChaosEngines, ChaosStarter
from rlframe.cli.main import main
from rlframe.cluster import start
from rlframe.cluster.placement import Slot
from rlframe.rollout.messages import EngineProgress

SPEED = "RLFRAME_ENGINE_SPEED"  # environment variable of pods: the file


class PacedEngine(ChaosEngine):
    """Samples at the speed that the file tells, which is 1 in the beginning."""

    async def progress(self, with_partials: bool = False) -> EngineProgress:
        self.set_speed(float(Path(os.environ[SPEED]).read_text()))
        return await super().progress(with_partials)


class PacedEngines(ChaosEngines):
    def engine_class(self, slot: Slot) -> tuple[type, tuple[Any, ...]]:
        return PacedEngine, (self.run.rollout.slots,)


class PacedStarter(ChaosStarter):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.engines = PacedEngines(self.run, self.model_path, self.namespace, self.handles)


if __name__ == "__main__":
    start.Starter = PacedStarter
    main()
