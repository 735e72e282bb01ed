"""The driver of a chaos run: the `rlframe` command, in which engines need no model. All else is the real thing."""

from __future__ import annotations

from benchmarks.chaos_parts.starter import ChaosStarter
from rlframe.cli.main import main
from rlframe.cluster import start

if __name__ == "__main__":
    start.Starter = ChaosStarter
    main()
