"""A run's curves as one picture: rewards, lengths, train/rollout mismatch, where the seconds go."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from rlframe.record.evaluations import MAIN_SET, by_set, figure_key, read_evaluations
from rlframe.record.metrics import read_metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from rlframe.record.directory import RunDir

BLUE, ORANGE, GREEN, RED, GREY = "#3b75af", "#e6953c", "#54a06a", "#c0392b", "#cfd4da"
HELD_OUT = [RED, GREEN, "#7d5ba6", "#8c6d46"]  # colours of held-out sets
# Named parts of time/step_s; the remaining seconds are drawn as the rest.
SPENT = {
    "rollout wait": ("time/rollout_wait_s", BLUE),
    "learner": ("time/learner_s", ORANGE),
    "weights": ("time/weight_sync_s", GREEN),
}
# Curves of the train/rollout mismatch; a synchronous run has no stale tokens.
MISMATCH = [
    ("mismatch/k3", BLUE, "k3 of KL (nats)"),
    ("mismatch/abs_mean", ORANGE, "mean |Δ logprob|"),
    ("mismatch/k3_stale", GREEN, "k3, stale"),
    ("mismatch/abs_mean_stale", RED, "|Δ|, stale"),
]
TOKENS = {"rows/tokens": "of all rows", "learner/tokens": "computed", "rows/trained_tokens": "trained on"}
FIGURES = [("chosen", "rejected", "score"), ("margin", "accuracy")]  # rows/* and eval/* of two panels
SMOOTHED = 5  # steps in the smallest running mean; a curve of 10 steps or more gets a running mean
LEGEND_COLUMNS = 4  # entries of a legend in a row

Points = tuple[list[int], list[float]]  # steps and their values


def draw(metrics_jsonl: Path, png: Path, evaluations: list[dict[str, float]] | None, reward: str) -> None:
    """Draws the metrics file of a run. A metric without values leaves its panel or its line empty.

    `evaluations` have `step` and figures on held-out prompts; the pass@1 of every set is drawn. `reward`: name of the
    reward whose mean is the accuracy.
    """
    _write(plot(read_metrics(metrics_jsonl), evaluations or [], reward), png)


def _write(figure: Figure, png: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    png.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_png(png)


def draw_run(files: RunDir, reward: str, warn: Callable[[str], None]) -> None:
    """Draws a run that has metrics. A disk that does not take the picture, as a full one, is a line for `warn`.

    The end of a run keeps its reason, which the error of the picture would replace.
    """
    if files.metrics.exists():
        try:
            draw(files.metrics, files.curves, read_evaluations(files.evaluations), reward)
        except OSError as error:
            warn(f"{files.curves} is not drawn: {error}")


def draw_tuning(files: RunDir, warn: Callable[[str], None]) -> None:
    """Draws a tuning run that has metrics."""
    if files.metrics.exists():
        try:
            _write(plot_tuning(read_metrics(files.metrics), read_evaluations(files.evaluations)), files.curves)
        except OSError as error:
            warn(f"{files.curves} is not drawn: {error}")


def plot(metrics: list[dict[str, Any]], evaluations: list[dict[str, float]], reward: str) -> Figure:
    """Plots four panels. `metrics` has one dict a step, in the order of steps."""
    panels = [
        partial(_draw_rewards, metrics=metrics, evaluations=evaluations, reward=reward),
        partial(_draw_lengths, metrics=metrics),
        partial(_draw_mismatch, metrics=metrics),
        partial(_draw_seconds, metrics=metrics),
    ]
    return _figure(metrics, evaluations, panels)


def plot_tuning(metrics: list[dict[str, Any]], evaluations: list[dict[str, float]]) -> Figure:
    """Plots losses, gradient, tokens and seconds of a tuning run; of comparisons or labels their figures."""
    panels = [
        partial(_draw_losses, metrics=metrics, evaluations=evaluations),
        partial(_draw_lines, title="Gradient norm", lines={"learner/grad_norm": "norm"}, metrics=metrics),
        partial(_draw_lines, title="Tokens of a step", lines=TOKENS, metrics=metrics),
        partial(_draw_seconds, metrics=metrics),
    ]
    if metrics and "rows/accuracy" in metrics[-1]:  # of comparisons or labels
        panels[1:3] = [
            partial(_draw_figures, names=names, metrics=metrics, evaluations=evaluations) for names in FIGURES
        ]
    return _figure(metrics, evaluations, panels)


def _figure(
    metrics: list[dict[str, Any]], evaluations: list[dict[str, float]], panels: list[Callable[[Axes], None]]
) -> Figure:
    """A figure of four panels, each drawn by a function."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.ticker import MaxNLocator

    layout = ConstrainedLayoutEngine(w_pad=0.16, h_pad=0.16)  # inches
    figure = Figure(figsize=(13, 7.8), dpi=130, layout=layout)  # without pyplot: any thread may draw
    steps = [int(entry["step"]) for entry in [*metrics, *evaluations]] or [0]
    margin = max(0.6, 0.02 * (max(steps) - min(steps)))  # 0.6 steps are wider than half a bar
    for axes, draw_panel in zip(figure.subplots(2, 2).flat, panels, strict=True):
        draw_panel(axes)
        _finish(axes)
        axes.set_xlim(min(steps) - margin, max(steps) + margin)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
    if len(metrics) >= 2 * SMOOTHED:
        note = f"faint: each step; bold: mean of the last {_window(len(metrics))} steps"
        figure.supxlabel(note, x=0.99, ha="right", fontsize=9, color="#777777")
    return figure


def _draw_rewards(axes: Axes, metrics: list[dict[str, Any]], evaluations: list[dict[str, float]], reward: str) -> None:
    _title(axes, "Reward and accuracy")
    _curve(axes, _points(metrics, "reward/mean"), BLUE, "reward")
    _curve(axes, _points(metrics, f"reward/{reward}"), ORANGE, "accuracy")
    sets = dict.fromkeys(name for evaluation in evaluations for name in by_set(evaluation))
    for index, name in enumerate(sets):
        steps, values = _points(evaluations, figure_key(name, "pass@1"))
        if steps:
            label = "held-out pass@1" if name == MAIN_SET else f"{name} pass@1"
            style = {"color": HELD_OUT[index % len(HELD_OUT)], "markersize": 6, "linewidth": 1.2, "zorder": 4}
            axes.plot(steps, values, "D--", label=label, **style)


def _draw_losses(axes: Axes, metrics: list[dict[str, Any]], evaluations: list[dict[str, float]]) -> None:
    """Draws the losses in nats a token, and the share of exact answers, which is from 0 to 1."""
    has_exact = any(figure_key(MAIN_SET, "exact") in row for row in evaluations)
    _title(axes, "Loss and exact answers" if has_exact else "Loss")
    _curve(axes, _points(metrics, "learner/loss"), BLUE, "loss")
    for key, colour, label in (("loss", ORANGE, "held-out loss"), ("exact", RED, "held-out exact")):
        steps, values = _points(evaluations, figure_key(MAIN_SET, key))
        if steps:
            axes.plot(steps, values, "D--", label=label, color=colour, markersize=6, linewidth=1.2, zorder=4)


def _draw_figures(
    axes: Axes, names: tuple[str, ...], metrics: list[dict[str, Any]], evaluations: list[dict[str, float]]
) -> None:
    """Draws figures of rows, and of held-out rows as diamonds."""
    found = [name for name in names if f"rows/{name}" in metrics[-1]]
    _title(axes, " and ".join(found).capitalize())
    for name, colour in zip(found, (BLUE, ORANGE), strict=False):
        _curve(axes, _points(metrics, f"rows/{name}"), colour, name)
        steps, values = _points(evaluations, figure_key(MAIN_SET, name))
        axes.plot(steps, values, "D--", color=colour, markersize=6, linewidth=1.2, zorder=4)


def _draw_lines(axes: Axes, title: str, lines: dict[str, str], metrics: list[dict[str, Any]]) -> None:
    """Draws metrics (key -> label) from 0 on."""
    _title(axes, title)
    for (key, label), colour in zip(lines.items(), (BLUE, ORANGE, GREEN), strict=False):
        _curve(axes, _points(metrics, key), colour, label)
    axes.set_ylim(bottom=0)


def _draw_lengths(axes: Axes, metrics: list[dict[str, Any]]) -> None:
    _title(axes, "Completion length (tokens)")
    points = _points(metrics, "rollout/completion_tokens")
    _curve(axes, points, BLUE, "mean")
    axes.set_ylim(0, 1.1 * max([1.0, *points[1]]))


def _draw_mismatch(axes: Axes, metrics: list[dict[str, Any]]) -> None:
    _title(axes, "Train / rollout mismatch")
    values: list[float] = []
    for key, colour, label in MISMATCH:
        points = _points(metrics, key)
        _curve(axes, points, colour, label)
        values += points[1]
    if values and min(values) > 0:
        axes.set_yscale("log")


def _draw_seconds(axes: Axes, metrics: list[dict[str, Any]]) -> None:
    """Draws stacked bars: seconds of a step are a duration, which a point of a line shows badly."""
    _title(axes, "Seconds a step")
    timed = [entry for entry in metrics if entry.get("time/step_s") is not None]
    steps = [entry["step"] for entry in timed]
    base = [0.0] * len(timed)
    width = 0.8 if len(timed) <= 60 else 1.0  # gaps between many narrow bars flicker
    for label, (key, colour) in SPENT.items():
        heights = [entry.get(key) or 0.0 for entry in timed]
        if any(heights):
            axes.bar(steps, heights, width, base, color=colour, label=label)
            base = [low + high for low, high in zip(base, heights, strict=True)]
    rest = [max(0.0, entry["time/step_s"] - low) for entry, low in zip(timed, base, strict=True)]
    if any(rest):
        axes.bar(steps, rest, width, base, color=GREY, label="rest")


def _curve(axes: Axes, points: Points, colour: str, label: str) -> None:
    """Draws a line through the values. Many values are drawn faint, with a bold running mean."""
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


def _title(axes: Axes, text: str, pad: float = 9.0) -> None:
    axes.set_title(text, loc="left", fontsize=11.5, fontweight="bold", pad=pad)


def _finish(axes: Axes) -> None:
    """Styles a panel. The legend stands above the panel, beside the title or, if it is long, below."""
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
            loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=LEGEND_COLUMNS, frameon=False, fontsize=9,
            handlelength=1.1, columnspacing=1.1, borderaxespad=0.3,
        )  # fmt: skip
        if len(handles) >= LEGEND_COLUMNS:
            _title(axes, axes.get_title(loc="left"), pad=9 + 15 * math.ceil(len(handles) / LEGEND_COLUMNS))


def _points(metrics: list[dict[str, Any]], key: str) -> Points:
    """Steps and values of `key`. A missing, null or infinite value is left out."""
    measured = [
        (int(entry["step"]), entry[key])
        for entry in metrics
        if entry.get(key) is not None and math.isfinite(entry[key])
    ]
    return [step for step, _ in measured], [value for _, value in measured]
