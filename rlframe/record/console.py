"""A person's view of a run: progress while the run starts, one row a step, and a panel at the end.

On a terminal the last line is alive (spinner, bar, elapsed time). A pipe or a file gets the same rows, plain.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean

from rich.console import Console as Terminal
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from rlframe.actors.activity import doing
from rlframe.record.evaluations import MAIN_SET, PREFIX, by_set
from rlframe.record.measures import STANDARD_ERROR, measure, measures, table
from rlframe.record.printed import stopped_line
from rlframe.record.text import printable
from rlframe.types import TEACHER

# Named parts of time/step_s as (heading, metric, colour); the remaining seconds are the rest.
SPENT = [
    ("rollout", "time/rollout_wait_s", "cyan"),
    ("learner", "time/learner_s", "magenta"),
    ("weights", "time/weight_sync_s", "yellow"),
]
# Heading -> width with the gap to its left. The widths add up to 80, the least width of a terminal.
START = {"step": 9, "reward": 8, "accuracy": 10, "tok/s": 7, "stale": 7, "s/step": 8}
ON_POLICY = START | {heading: 8 for heading, _, _ in SPENT} | {"ETA": 7}
# Engines and learner work at the same time: shares of slots and learner without work, and groups that wait for a step.
AHEAD = START | {"eng.idle": 9, "lrn.idle": 9, "ready": 6, "ETA": 7}
TUNING = {"step": 9, "loss": 9, "norm": 8, "lr": 10, "tok/s": 8, "shared": 8, "s/step": 8, "ETA": 7}  # no engines
PREFERRING = {"step": 9, "loss": 9, "lr": 10, "s/step": 8, "ETA": 7}  # and a column of 9 for each figure
MIN_BAR, MAX_BAR = 12, 30  # cells of the bar of seconds; a terminal without room for MIN_BAR gets no bar
ROWS_PER_HEADING = 25
PROGRESS_S = 30.0  # between lines on a long phase, where no terminal shows a bar


class Console:
    """A sink for a person at a terminal. A `with` block closes it at exit."""

    def __init__(
        self,
        steps: int,
        reward: str = "",
        terminal: Terminal | None = None,
        *,
        ahead: bool = False,
        tuning: bool = False,
        figures: Sequence[str] = (),
        teachers: Sequence[str] = (),
    ) -> None:
        """`steps`: the last step of the run. `reward`: name of the reward whose mean is the accuracy.

        `ahead`: engines sample for later steps while the learner computes. `tuning`: there are no engines.
        `figures`: names of the metrics rows/* that the algorithm of a tuning run measures. `teachers`: names; the
        divergence from the first one takes the place of `stale`.
        """
        self.steps = steps
        self._tuning = tuning
        self._figures = figures
        self._divergence = f"{TEACHER}{teachers[0]}/kl" if teachers else ""
        widths = TUNING if tuning else AHEAD if ahead else ON_POLICY
        self._widths = {"KL" if teachers and name == "stale" else name: width for name, width in widths.items()}
        if figures:
            (step, *rest), width = PREFERRING.items(), 9
            self._widths = dict([step, *((name, width) for name in figures), *rest])
        self._accuracy = f"reward/{reward}"
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
        self._step_seconds: deque[float] = deque(maxlen=20)  # of the latest steps, for the ETA
        spare = self._terminal.width - sum(self._widths.values()) - 3
        self._bar_cells = min(spare, MAX_BAR) if self._terminal.is_terminal and spare >= MIN_BAR and not tuning else 0

    def __enter__(self) -> Console:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def phase(self, text: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """Shows `text` and the elapsed seconds while the `with` block runs, then prints a line with its duration.

        The block may call the yielded function with the part of `total` that is done.
        """
        start = printed = time.monotonic()
        if not self._terminal.is_terminal:
            self._print(Text(f"… {text}"))
        self._alive.start()
        task = self._alive.add_task(text, total=total)

        def show_done(done: int) -> None:
            nonlocal printed
            self._alive.update(task, completed=done)
            if not self._terminal.is_terminal and time.monotonic() - printed > PROGRESS_S:
                printed = time.monotonic()
                self._print(Text(f"… {text}: {done} of {total}"))

        mark = ("✗ ", "bold red")
        try:
            with doing(text):
                yield show_done
            mark = ("✓ ", "green")
        finally:
            self._alive.remove_task(task)
            if not self._alive.tasks:
                self._alive.stop()
            self._print(Text.assemble(mark, text, (f"  {_seconds(time.monotonic() - start)} s", "dim")))

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Prints one row for metrics with `time/step_s`, and a separate line for metrics on held-out prompts."""
        if "time/step_s" in metrics:
            self._step_seconds.append(metrics["time/step_s"])
            if self._rows % ROWS_PER_HEADING == 0:
                self._print(Text("".join(f"{heading:>{width}}" for heading, width in self._widths.items()), "dim"))
            self._rows += 1
            self._print(self._row(step, metrics))
            self._alive.start()
            if self._training is None:
                self._training = self._alive.add_task("", total=self.steps)
            self._alive.update(self._training, completed=step, description=f"{step} of {self.steps} steps")
        for name, figures in by_set(metrics).items():
            line = Table.grid(padding=(0, 2))  # a grid indents a second line like the first
            text = "  ".join(f"{figure}\N{NO-BREAK SPACE}{number}" for figure, number in measures(figures).items())
            label = "held-out" if name == MAIN_SET else name
            line.add_row(Text(f"{f'{step}/{self.steps}':>{START['step']}}"), label, Text(text, "bold"))
            self._print(line)

    def summary(
        self,
        before: dict[str, float],
        after: dict[str, float],
        samples: Sequence[tuple[str, str]],
        run_dir: Path,
        curves_path: Path | None,
    ) -> None:
        """Prints the end of a run: held-out figures before and after, two (prompt, completion) pairs, file paths."""
        self.close()
        details = Table.grid(padding=(0, 2))
        for prompt, completion in samples[:2]:
            details.add_row(Text("prompt", "dim"), Text(_clip(prompt, lines=2), "dim"))
            details.add_row(Text("completion", "dim"), Text(_clip(completion, lines=5)))
            details.add_row()
        details.add_row(Text("run", "dim"), Text(str(run_dir), overflow="fold"))
        if curves_path is not None:
            details.add_row(Text("curves", "dim"), Text(str(curves_path), overflow="fold"))
        held_out = f"held-out {'rows' if self._tuning else 'prompts'}"
        comparison = [_comparison(held_out, before, after), Text()] if after else []
        title = Text("finished", "bold green")
        self._print(Panel(Group(*comparison, details), title=title, title_align="left", padding=(1, 2)))

    def evaluated(self, figures: dict[str, float], run_dir: Path) -> None:
        """Prints the end of a run that only evaluates: a column for each held-out set, and the run's folder."""
        self.close()
        paths = Table.grid(padding=(0, 2))
        paths.add_row(Text("run", "dim"), Text(str(run_dir), overflow="fold"))
        self._print(Group(Text(), table(figures), Text(), paths))

    def note(self, text: str) -> None:
        """Prints a text."""
        self._print(Text(printable(text)))

    def warn(self, text: str) -> None:
        """Prints a text in bold."""
        self._print(Text(printable(f"! {text}"), "bold yellow"))

    def stopped(self, signal: str, step: int, checkpoint: Path | None, run_dir: Path) -> None:
        """Prints the end by a signal on one line, however long, since `rlframe stop` reads it."""
        stopped = stopped_line(signal, step, checkpoint, run_dir, "tune" if self._tuning else "train")
        line = Text(printable(f"! {stopped}"), "bold yellow")
        self._terminal.print(line, soft_wrap=True)
        self._terminal.file.flush()

    def close(self) -> None:
        """Clears the live last line of the terminal. A second call does nothing."""
        if self._training is not None:
            self._alive.remove_task(self._training)
            self._training = None
        self._alive.stop()

    def _row(self, step: int, metrics: dict[str, float]) -> Text:
        """The row of one step, with a dash for a missing metric."""

        def cell(key: str, form: str) -> str:
            return format(metrics[key], form) if key in metrics else "–"

        cells = {
            "step": f"{step}/{self.steps}",
            "reward": cell("reward/mean", ".3f"),
            "accuracy": cell(self._accuracy, ".3f"),
            "loss": cell("learner/loss", ".4f"),
            "norm": cell("learner/grad_norm", ".2f"),
            "lr": cell("learner/lr", ".2e"),
            "shared": cell("rows/shared", ".0%"),
            "tok/s": cell("rows/tokens_per_s" if self._tuning else "rollout/tokens_per_s", ".0f"),
            "KL": cell(self._divergence, ".4f"),
            "stale": cell("rollout/staleness_mean", ".2f"),
            "s/step": _seconds(metrics["time/step_s"]),
            "eng.idle": cell("rollout/slots_idle", ".0%"),
            "lrn.idle": cell("learner/idle", ".0%"),
            "ready": cell("rollout/groups_ready", ".0f"),
            "ETA": _clock((self.steps - step) * fmean(self._step_seconds)),
        } | {heading: _seconds(metrics[key]) if key in metrics else "–" for heading, key, _ in SPENT}
        cells |= {name: measure(name, metrics[f"rows/{name}"]) for name in self._figures}
        styles = {"reward": "bold", "accuracy": "bold", "loss": "bold", "lrn.idle": "cyan"} | {
            heading: colour for heading, _, colour in SPENT
        }
        row = Text()
        for heading, width in self._widths.items():
            row.append(f"{cells[heading]:>{width}}", styles.get(heading, ""))
        return row.append_text(self._bar(metrics)) if self._bar_cells else row

    def _bar(self, metrics: dict[str, float]) -> Text:
        """The step's seconds as a bar in the colours of SPENT, with a dim rest."""
        bar = Text("  ")
        per_second = self._bar_cells / max(metrics["time/step_s"], 1e-9)
        for _, key, colour in SPENT:
            bar.append("━" * round(metrics.get(key, 0.0) * per_second), colour)
        bar.append("━" * (self._bar_cells + 2 - len(bar)), "bright_black")
        return bar[: self._bar_cells + 2]

    def _print(self, content: RenderableType) -> None:
        self._terminal.print(content)
        self._terminal.file.flush()  # a pipe shows nothing until its buffer is full or flushed


def _comparison(title: str, before: dict[str, float], after: dict[str, float]) -> Table:
    table = Table(box=None, header_style="dim", padding=(0, 3, 0, 0), pad_edge=False)
    table.add_column(title)
    for heading in ("before", "after", "change"):
        table.add_column(heading, justify="right")
    for key, value in after.items():
        name = key.removeprefix(PREFIX)
        if name.endswith(STANDARD_ERROR):
            continue
        table.add_row(
            name,
            Text(measure(name, before[key]) if key in before else "–"),
            Text(measure(name, value), "bold"),
            Text(measure(name, value - before[key], sign="+") if key in before else "–"),
        )
    return table


def _clip(text: str, lines: int) -> str:
    """The first `lines` lines of a text, and at most 80 characters a line on average."""
    text = printable(text.expandtabs(4).strip())
    excerpt = "\n".join(text.splitlines()[:lines])[: lines * 80].rstrip()
    return excerpt if len(excerpt) == len(text) else excerpt + " …"


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f}" if seconds < 10 else f"{seconds:.1f}" if seconds < 1000 else f"{seconds:.0f}"


def _clock(seconds: float) -> str:
    """A duration in its two largest units: 42s, 5m07s, 3h20m, 2d04h."""
    for unit, size, subunit, subunit_size in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}{int(seconds % size // subunit_size):02}{subunit}"
    return f"{int(seconds)}s"
