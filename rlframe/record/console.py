"""What a person sees of a run: progress while it starts, one row a step, and a panel at the end.

On a terminal the last line is alive (spinner, bar, elapsed time); into a pipe or a file go the same rows, plain.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean

from rich.console import Console as Terminal
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

HELD_OUT = "eval/"  # the prefix of metrics from held-out prompts
# What a step's seconds are spent on, as (heading, metric, colour); what they leave of time/step_s is the rest.
SPENT = [
    ("rollout", "time/rollout_wait_s", "cyan"),
    ("learner", "time/learner_s", "magenta"),
    ("weights", "time/weight_sync_s", "yellow"),
]
# Heading -> width, with the gap before it: 80 in all, which a terminal has at least.
WIDTHS = {"step": 9, "reward": 8, "accuracy": 10, "tok/s": 7, "stale": 7, "s/step": 8}
WIDTHS |= {heading: 8 for heading, _, _ in SPENT} | {"ETA": 7}
MIN_BAR, MAX_BAR = 12, 30  # cells of the bar of seconds; a terminal too narrow for the least has none
ROWS_PER_HEADING = 25


class Console:
    """The sink that a person reads. `steps` is what the run is to reach."""

    def __init__(self, steps: int, terminal: Terminal | None = None) -> None:
        self._steps = steps
        self._terminal = terminal or Terminal(highlight=False)
        self._alive = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TimeElapsedColumn(),
            console=self._terminal,
            transient=True,
            expand=True,
            disable=not self._terminal.is_terminal,
        )
        self._training: TaskID | None = None
        self._rows = 0
        self._step_seconds: deque[float] = deque(maxlen=20)  # of the latest steps: what the ETA goes by
        spare = self._terminal.width - sum(WIDTHS.values()) - 3
        self._bar_cells = min(spare, MAX_BAR) if self._terminal.is_terminal and spare >= MIN_BAR else 0

    @contextmanager
    def phase(self, text: str) -> Iterator[None]:
        """Shows `text` and the seconds since, while what is inside runs; then leaves a line of how long it took."""
        start = time.monotonic()
        if not self._terminal.is_terminal:
            self._print(Text(f"… {text}"))
        self._alive.start()
        task = self._alive.add_task(text, total=None)
        mark = ("✗ ", "bold red")
        try:
            yield
            mark = ("✓ ", "green")
        finally:
            self._alive.remove_task(task)
            if not self._alive.tasks:
                self._alive.stop()
            self._print(Text.assemble(mark, text, (f"  {_seconds(time.monotonic() - start)} s", "dim")))

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """One row a step (metrics with `time/step_s`); those from held-out prompts on a line of their own."""
        if "time/step_s" in metrics:
            self._step_seconds.append(metrics["time/step_s"])
            if self._rows % ROWS_PER_HEADING == 0:
                self._print(Text("".join(f"{heading:>{width}}" for heading, width in WIDTHS.items()), "dim"))
            self._rows += 1
            self._print(self._row(step, metrics))
            self._alive.start()
            if self._training is None:
                self._training = self._alive.add_task("", total=self._steps)
            self._alive.update(self._training, completed=step, description=f"{step} of {self._steps} steps")
        held_out = {key.removeprefix(HELD_OUT): value for key, value in metrics.items() if key.startswith(HELD_OUT)}
        if held_out:
            line = Table.grid(padding=(0, 2))  # a grid, so that a second line is indented as the first
            numbers = "  ".join(f"{name}\N{NO-BREAK SPACE}{_measure(name, value)}" for name, value in held_out.items())
            line.add_row(Text(f"{f'{step}/{self._steps}':>{WIDTHS['step']}}"), "held-out", Text(numbers, "bold"))
            self._print(line)

    def summary(
        self,
        before: dict[str, float],
        after: dict[str, float],
        samples: Sequence[tuple[str, str]],
        run_dir: Path,
        curves_path: Path | None,
    ) -> None:
        """The end of a run: held-out numbers before and after, two (prompt, completion) pairs, where it all lies."""
        self.close()
        rest = Table.grid(padding=(0, 2))
        for prompt, completion in samples[:2]:
            rest.add_row(Text("prompt", "dim"), Text(_clip(prompt, lines=2), "dim"))
            rest.add_row(Text("completion", "dim"), Text(_clip(completion, lines=5)))
            rest.add_row()
        rest.add_row(Text("run", "dim"), Text(str(run_dir), overflow="fold"))
        if curves_path is not None:
            rest.add_row(Text("curves", "dim"), Text(str(curves_path), overflow="fold"))
        comparison = [_comparison(before, after), Text()] if after else []
        title = Text("finished", "bold green")
        self._print(Panel(Group(*comparison, rest), title=title, title_align="left", padding=(1, 2)))

    def warn(self, text: str) -> None:
        """A line that must not be overlooked."""
        self._print(Text(f"! {text}", "bold yellow"))

    def close(self) -> None:
        """Gives the terminal's last line back. May be called twice."""
        if self._training is not None:
            self._alive.remove_task(self._training)
            self._training = None
        self._alive.stop()

    def _row(self, step: int, metrics: dict[str, float]) -> Text:
        """The row of one step; a dash where a metric is missing."""

        def cell(key: str, form: str) -> str:
            return format(metrics[key], form) if key in metrics else "–"

        cells = {
            "step": f"{step}/{self._steps}",
            "reward": cell("reward/mean", ".3f"),
            "accuracy": cell("reward/math", ".3f"),
            "tok/s": cell("rollout/tokens_per_s", ".0f"),
            "stale": cell("rollout/staleness_mean", ".2f"),
            "s/step": _seconds(metrics["time/step_s"]),
            "ETA": _clock((self._steps - step) * fmean(self._step_seconds)),
        } | {heading: _seconds(metrics[key]) if key in metrics else "–" for heading, key, _ in SPENT}
        styles = {"reward": "bold", "accuracy": "bold"} | {heading: colour for heading, _, colour in SPENT}
        row = Text()
        for heading, width in WIDTHS.items():
            row.append(f"{cells[heading]:>{width}}", styles.get(heading, ""))
        return row.append_text(self._bar(metrics)) if self._bar_cells else row

    def _bar(self, metrics: dict[str, float]) -> Text:
        """The step's seconds as a line in the colours of SPENT, the rest dim."""
        bar = Text("  ")
        per_second = self._bar_cells / max(metrics["time/step_s"], 1e-9)
        for _, key, colour in SPENT:
            bar.append("━" * round(metrics.get(key, 0.0) * per_second), colour)
        bar.append("━" * (self._bar_cells + 2 - len(bar)), "bright_black")
        return bar[: self._bar_cells + 2]

    def _print(self, what: RenderableType) -> None:
        self._terminal.print(what)
        self._terminal.file.flush()  # a pipe is otherwise silent until its buffer is full


def _comparison(before: dict[str, float], after: dict[str, float]) -> Table:
    table = Table(box=None, header_style="dim", padding=(0, 3, 0, 0), pad_edge=False)
    table.add_column("held-out prompts")
    for heading in ("before", "after", "change"):
        table.add_column(heading, justify="right")
    for key, value in after.items():
        name = key.removeprefix(HELD_OUT)
        known = key in before
        was, change = (before[key], value - before[key]) if known else (0.0, 0.0)
        table.add_row(
            name,
            Text(_measure(name, was) if known else "–"),
            Text(_measure(name, value), "bold"),
            Text(_measure(name, change, sign="+") if known else "–"),
        )
    return table


def _clip(text: str, lines: int) -> str:
    """The beginning of a text: many lines are cut, and so is one endless line.

    What a model wrote may hold escape codes that would paint or move the terminal: those are shown as a dot.
    """
    text = "".join(char if char.isprintable() or char == "\n" else "·" for char in text.expandtabs(4).strip())
    shown = "\n".join(text.splitlines()[:lines])[: lines * 80].rstrip()
    return shown if len(shown) == len(text) else shown + " …"


def _measure(name: str, value: float, sign: str = "") -> str:
    """A share (pass@k, cons@k) in percent, a reward to three places, a length to one."""
    form = ".1%" if "@" in name else ".3f" if name == "reward" else ".1f"
    return format(value, sign + form)


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f}" if seconds < 10 else f"{seconds:.1f}" if seconds < 1000 else f"{seconds:.0f}"


def _clock(seconds: float) -> str:
    """A duration in its two largest units: 42s, 5m07s, 3h20m, 2d04h."""
    for unit, size, part, part_size in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}{int(seconds % size // part_size):02}{part}"
    return f"{int(seconds)}s"
