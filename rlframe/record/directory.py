"""`RunDir`: where everything of a run lies, by name."""

from __future__ import annotations

import json
from pathlib import Path


class RunDir:
    """A run's folder on this machine, or on a file system that all of its machines share."""

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().resolve()
        self.config = self.path / "config.yaml"
        self.metrics = self.path / "metrics.jsonl"
        self.evaluations = self.path / "evaluations.jsonl"
        self.rollouts = self.path / "rollouts"
        self.checkpoints = self.path / "checkpoints"
        self.curves = self.path / "curves.png"

    def holds_a_run(self) -> bool:
        return self.config.exists() or self.metrics.exists() or self.checkpoints.exists()

    def create(self) -> None:
        for folder in (self.path, self.rollouts, self.checkpoints):
            folder.mkdir(parents=True, exist_ok=True)

    def add_evaluation(self, step: int, figures: dict[str, float]) -> None:
        """Adds a line to `evaluations.jsonl`, in place of one of the same step or of later ones."""
        kept = [row for row in self.read_evaluations() if row["step"] < step]
        lines = [json.dumps(row) + "\n" for row in [*kept, {"step": step, **figures}]]
        aside = self.evaluations.with_suffix(".partial")
        aside.write_text("".join(lines))
        aside.replace(self.evaluations)

    def read_evaluations(self) -> list[dict[str, float]]:
        if not self.evaluations.exists():
            return []
        return [json.loads(line) for line in self.evaluations.read_text().splitlines()]
