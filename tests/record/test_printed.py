"""Lines of the console, read back by other commands."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console as Terminal

from rlframe.record.console import Console
from rlframe.record.printed import LastRow, Stopped, read_last_row, read_stopped

STEP = {"reward/mean": -0.53125, "time/step_s": 12.3}
LONG = Path("/shared/with spaces") / ("a" * 200)  # longer than a line of the console


def printed(*, ahead: bool) -> str:
    """The output of two steps, an evaluation between them, and a signal."""
    file = io.StringIO()
    console = Console(200, "math", Terminal(file=file, width=80, color_system=None, highlight=False), ahead=ahead)
    console.log(1, STEP)
    console.log(1, {"heldout/reward": 0.75})
    console.log(12, STEP | {"reward/mean": 0.25})
    console.log(12, {"heldout/reward": 0.75})
    console.stopped("SIGTERM", 12, LONG / "step_000012", LONG)
    return file.getvalue()


def test_the_last_row_is_read_back() -> None:
    for ahead in (False, True):
        assert read_last_row(printed(ahead=ahead)) == LastRow(step=12, steps=200, reward="0.250")
    assert read_last_row("✓ reading the prompts  0.82 s\n     step  reward  accuracy\n") is None
    assert read_last_row("     3/200   -0.531     0.000 \n") == LastRow(step=3, steps=200, reward="-0.531")
    assert read_last_row("     3/200      –         – \n") == LastRow(step=3, steps=200, reward="–")


def test_the_checkpoint_of_a_stop_is_read_back() -> None:
    assert read_stopped(printed(ahead=False)) == Stopped(step=12, checkpoint=str(LONG / "step_000012"))
    assert read_stopped("12/200 0.5") is None


def test_a_stop_without_a_checkpoint_says_so() -> None:
    file = io.StringIO()
    Console(200, "math", Terminal(file=file, width=80)).stopped("SIGTERM", 0, None, Path("/runs/first"))
    assert read_stopped(file.getvalue()) == Stopped(step=0, checkpoint=None)


def test_a_tuning_run_is_told_its_own_verb() -> None:
    file = io.StringIO()
    Console(48, terminal=Terminal(file=file, width=80), tuning=True).stopped("SIGINT", 3, None, Path("/runs/first"))
    assert "go on with: rlframe tune resume=/runs/first" in file.getvalue()
