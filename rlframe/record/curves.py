"""A run's curves as one picture: rewards, lengths, train/rollout mismatch, where the seconds go."""

from __future__ import annotations

import json
import math
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, RED, GREY = "#3b75af", "#e6953c", "#54a06a", "#c0392b", "#cfd4da"
# What a step's seconds are spent on; what they leave of time/step_s is the rest.
SPENT = {
    "rollout wait": ("time/rollout_wait_s", BLUE),
    "learner": ("time/learner_s", ORANGE),
    "weights": ("time/weight_sync_s", GREEN),
}
SMOOTHED = 5  # steps: from twice as many on, a noisy curve gets a running mean over this many, at least

Points = tuple[list[int], list[float]]  # steps and the values there


def draw(metrics_jsonl: Path, png: Path, evaluations: list[dict[str, float]] | None) -> None:
    """Draws what `JsonlSink` wrote; a metric that was never logged leaves its panel, or its line, empty.

    `evaluations` hold `step` and numbers from held-out prompts, of which those ending in `pass@1` are drawn.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = plot(_rows(metrics_jsonl), evaluations or [])
    png.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_png(png)


def plot(rows: list[dict[str, Any]], evaluations: list[dict[str, float]]) -> Figure:
    """The figure of four panels; `rows` are one dict of metrics a step, in order."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.ticker import MaxNLocator

    layout = ConstrainedLayoutEngine(w_pad=0.16, h_pad=0.16)  # inches
    figure = Figure(figsize=(13, 7.8), dpi=130, layout=layout)  # not pyplot: no global state, any thread
    (rewards, lengths), (mismatch, seconds) = figure.subplots(2, 2)
    _draw_rewards(rewards, rows, evaluations)
    _draw_lengths(lengths, rows)
    _draw_mismatch(mismatch, rows)
    _draw_seconds(seconds, rows)
    steps = [int(row["step"]) for row in [*rows, *evaluations]] or [0]
    margin = max(0.6, 0.02 * (max(steps) - min(steps)))  # the least holds half a bar
    for axes in (rewards, lengths, mismatch, seconds):
        _finish(axes)
        axes.set_xlim(min(steps) - margin, max(steps) + margin)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
    if len(rows) >= 2 * SMOOTHED:
        note = f"faint: each step; bold: mean of the last {_window(len(rows))} steps"
        figure.supxlabel(note, x=0.99, ha="right", fontsize=9, color="#777777")
    return figure


def _draw_rewards(axes: Axes, rows: list[dict[str, Any]], evaluations: list[dict[str, float]]) -> None:
    _title(axes, "Reward and accuracy")
    _curve(axes, _points(rows, "reward/mean"), BLUE, "reward")
    _curve(axes, _points(rows, "reward/math"), ORANGE, "accuracy")
    key = next((key for row in evaluations for key in row if key.endswith("pass@1")), "")
    steps, values = _points(evaluations, key)
    if steps:
        axes.plot(steps, values, "D--", color=RED, markersize=6, linewidth=1.2, label="held-out pass@1", zorder=4)


def _draw_lengths(axes: Axes, rows: list[dict[str, Any]]) -> None:
    _title(axes, "Completion length (tokens)")
    points = _points(rows, "rollout/completion_tokens")
    _curve(axes, points, BLUE, "mean")
    axes.set_ylim(0, 1.1 * max([1.0, *points[1]]))


def _draw_mismatch(axes: Axes, rows: list[dict[str, Any]]) -> None:
    _title(axes, "Train / rollout mismatch")
    k3, absolute = _points(rows, "mismatch/k3"), _points(rows, "mismatch/abs_mean")
    _curve(axes, k3, BLUE, "k3 of KL (nats)")
    _curve(axes, absolute, ORANGE, "mean |Δ logprob|")
    values = k3[1] + absolute[1]
    if values and min(values) > 0:
        axes.set_yscale("log")


def _draw_seconds(axes: Axes, rows: list[dict[str, Any]]) -> None:
    """Stacked bars, since a step is a thing that took so long, not a point of a line."""
    _title(axes, "Seconds a step")
    timed = [row for row in rows if row.get("time/step_s") is not None]
    steps = [row["step"] for row in timed]
    base = [0.0] * len(timed)
    width = 0.8 if len(timed) <= 60 else 1.0  # gaps between many narrow bars would only flicker
    for label, (key, colour) in SPENT.items():
        spent = [row.get(key) or 0.0 for row in timed]
        if any(spent):
            axes.bar(steps, spent, width, base, color=colour, label=label)
            base = [low + high for low, high in zip(base, spent, strict=True)]
    rest = [max(0.0, row["time/step_s"] - low) for row, low in zip(timed, base, strict=True)]
    if any(rest):
        axes.bar(steps, rest, width, base, color=GREY, label="rest")


def _curve(axes: Axes, points: Points, colour: str, label: str) -> None:
    """A line through the values, or, where there are many, the values faint and their running mean."""
    steps, values = points
    if not steps:
        return
    if len(values) < 2 * SMOOTHED:
        axes.plot(steps, values, "o-", color=colour, markersize=5, linewidth=1.8, label=label)
        return
    window = _window(len(values))
    smooth = [fmean(values[max(0, end - window) : end]) for end in range(1, len(values) + 1)]
    axes.plot(steps, values, color=colour, alpha=0.3, linewidth=1)
    axes.plot(steps, smooth, color=colour, linewidth=2, label=label)


def _window(count: int) -> int:
    return max(SMOOTHED, count // 20)


def _title(axes: Axes, text: str) -> None:
    axes.set_title(text, loc="left", fontsize=11.5, fontweight="bold", pad=9)


def _finish(axes: Axes) -> None:
    """What all panels share. The legend stands above the panel, where it covers nothing."""
    axes.set_xlabel("step", color="#555555")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e3e6ea", linewidth=0.8)
    axes.set_axisbelow(True)
    handles, _ = axes.get_legend_handles_labels()
    if not handles:
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", va="center", color="#999999")
        axes.set_yticks([])
    elif len(handles) > 1:
        axes.legend(
            loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=len(handles), frameon=False, fontsize=9,
            handlelength=1.1, columnspacing=1.1, borderaxespad=0.3,
        )  # fmt: skip


def _rows(metrics_jsonl: Path) -> list[dict[str, Any]]:
    """One dict a step, in order: several lines of one step are one row. A torn last line is not read."""
    by_step: dict[int, dict[str, Any]] = {}
    for line in metrics_jsonl.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            row = json.loads(line)
            by_step.setdefault(row["step"], {}).update(row)
    return [by_step[step] for step in sorted(by_step)]


def _points(rows: list[dict[str, Any]], key: str) -> Points:
    """Where `key` was measured: null stands for what was not a finite number."""
    known = [(int(row["step"]), row[key]) for row in rows if row.get(key) is not None and math.isfinite(row[key])]
    return [step for step, _ in known], [value for _, value in known]
