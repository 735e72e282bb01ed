"""`RunDir`: the names of a run's files."""

from __future__ import annotations

from pathlib import Path


class RunDir:
    """A run's folder on this machine, or on a file system that all of its machines share."""

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().resolve()
        self.config = self.path / "config.yaml"
        self.metrics = self.path / "metrics.jsonl"
        self.evaluations = self.path / "evaluations.jsonl"
        self.evaluation_rollouts = self.path / "evaluations"  # a folder for each held-out set
        self.rollouts = self.path / "rollouts"
        self.checkpoints = self.path / "checkpoints"
        self.curves = self.path / "curves.png"

    def holds_a_run(self) -> bool:
        return self.config.exists() or self.metrics.exists() or self.checkpoints.exists()

    def create(self) -> None:
        for folder in (self.path, self.rollouts, self.checkpoints):
            folder.mkdir(parents=True, exist_ok=True)
