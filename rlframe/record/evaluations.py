"""`evaluations.jsonl`: figures on held-out prompts, one line a step, written and read.

Keys of the set of `prompts.heldout` are `eval/pass@1`, ...; keys of a further set have its name: `eval/aime/pass@1`.
"""

from __future__ import annotations

from pathlib import Path

from rlframe.record.files import read_json_lines, write_json_lines

PREFIX = "eval/"
MAIN_SET = "heldout"  # the set without a name in its keys


def figure_key(name: str, figure: str) -> str:
    """The key of a set's figure."""
    return f"{PREFIX}{figure}" if name == MAIN_SET else f"{PREFIX}{name}/{figure}"


def by_set(metrics: dict[str, float]) -> dict[str, dict[str, float]]:
    """Set -> figure -> value; other keys of `metrics` are left out.

    >>> by_set({"eval/pass@1": 0.5, "eval/aime/pass@1": 0.1, "step": 3})
    {'heldout': {'pass@1': 0.5}, 'aime': {'pass@1': 0.1}}
    """
    sets: dict[str, dict[str, float]] = {}
    for key, value in metrics.items():
        if key.startswith(PREFIX):
            name, _, figure = key.removeprefix(PREFIX).rpartition("/")
            sets.setdefault(name or MAIN_SET, {})[figure] = value
    return sets


def add_evaluation(path: Path, step: int, figures: dict[str, float]) -> None:
    """Adds a line for `step`. Lines of the same step or of later ones, which a resumed run repeats, are dropped."""
    earlier = [evaluation for evaluation in read_evaluations(path) if evaluation["step"] < step]
    write_json_lines(path, [*earlier, {"step": step, **figures}])


def keep_evaluations(path: Path, last_step: int) -> None:
    """Drops lines of later steps than `last_step`, which a resumed run takes again with other rollouts."""
    evaluations = read_evaluations(path)
    kept = [evaluation for evaluation in evaluations if evaluation["step"] <= last_step]
    if len(kept) < len(evaluations):
        write_json_lines(path, kept)


def read_evaluations(path: Path) -> list[dict[str, float]]:
    """Reads `step` and figures of every evaluation; a run without evaluations has no file."""
    return read_json_lines(path, "step") if path.exists() else []


def first_and_last(path: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Figures of a run's first and last evaluation; empty without any."""
    evaluations = read_evaluations(path) or [{}]
    first, last = (
        {name: value for name, value in evaluation.items() if name != "step"}
        for evaluation in (evaluations[0], evaluations[-1])
    )
    return first, last
