"""`evaluations.jsonl`: figures on held-out prompts, one line a step, written and read."""

from __future__ import annotations

from pathlib import Path

from rlframe.record.files import read_json_lines, write_json_lines


def add_evaluation(path: Path, step: int, figures: dict[str, float]) -> None:
    """Adds a line for `step`. Lines of the same step or of later ones, which a resumed run repeats, are dropped."""
    earlier = [evaluation for evaluation in read_evaluations(path) if evaluation["step"] < step]
    write_json_lines(path, [*earlier, {"step": step, **figures}])


def read_evaluations(path: Path) -> list[dict[str, float]]:
    """Reads `step` and figures of every evaluation; a run without evaluations has no file."""
    return read_json_lines(path, "step") if path.exists() else []
