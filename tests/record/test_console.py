"""The console's output, read back as text."""

import io
from pathlib import Path

import pytest
from rich.console import Console as Terminal

from rlframe.record.console import Console

STEP = {
    "reward/mean": 0.53125, "reward/math": 0.5, "rollout/tokens_per_s": 1234.4, "rollout/staleness_mean": 0.4,
    "time/step_s": 12.3, "time/rollout_wait_s": 8.125, "time/learner_s": 3.9, "time/weight_sync_s": 0.3,
}  # fmt: skip


@pytest.fixture
def screen():
    """Makes a console that writes to memory without colours, and a function that returns its output."""

    def make(steps: int, width: int = 80, terminal: bool = False, ahead: bool = False):
        file = io.StringIO()
        rich = Terminal(file=file, width=width, force_terminal=terminal, color_system=None, highlight=False)
        return Console(steps, "math", rich, ahead=ahead), file.getvalue

    return make


def test_a_row_shows_the_step_its_reward_and_its_seconds(screen):
    console, text = screen(steps=200)
    console.log(12, STEP)
    heading, row = text().splitlines()
    columns = dict(zip(heading.split(), row.split(), strict=True))
    assert columns == {
        "step": "12/200", "reward": "0.531", "accuracy": "0.500", "tok/s": "1234", "stale": "0.40", "s/step": "12.3",
        "rollout": "8.12", "learner": "3.90", "weights": "0.30", "ETA": "38m32s",
    }  # fmt: skip
    assert len(heading) == len(row) == 80


def test_a_row_ahead_shows_who_is_idle_and_the_groups_that_wait(screen):
    console, text = screen(steps=200, ahead=True)
    console.log(12, STEP | {"rollout/slots_idle": 0.054, "learner/idle": 0.31, "rollout/groups_ready": 17.0})
    heading, row = text().splitlines()
    assert dict(zip(heading.split(), row.split(), strict=True)) == {
        "step": "12/200", "reward": "0.531", "accuracy": "0.500", "tok/s": "1234", "stale": "0.40", "s/step": "12.3",
        "eng.idle": "5%", "lrn.idle": "31%", "ready": "17", "ETA": "38m32s",
    }  # fmt: skip
    assert len(heading) == len(row) == 80


def test_the_eta_is_remaining_steps_times_mean_seconds(screen):
    console, text = screen(steps=10)
    console.log(1, STEP | {"time/step_s": 10.0})
    console.log(2, STEP | {"time/step_s": 20.0})
    assert text().splitlines()[-1].split()[-1] == "2m00s"  # 8 steps of 15 s


def test_a_missing_metric_is_a_dash(screen):
    console, text = screen(steps=10)
    console.log(1, {"time/step_s": 10.0})
    assert text().splitlines()[-1].split() == ["1/10", "–", "–", "–", "–", "10.0", "–", "–", "–", "1m30s"]


def test_headings_repeat_after_25_rows(screen):
    console, text = screen(steps=30)
    for step in range(1, 31):
        console.log(step, STEP)
    assert [number for number, line in enumerate(text().splitlines()) if "reward" in line] == [0, 26]


def test_held_out_figures_have_a_separate_line(screen):
    console, text = screen(steps=10)
    console.log(5, {"eval/pass@1": 0.25, "eval/reward": 0.33325, "eval/completion_tokens": 180.04})
    words = text().split()
    assert words == ["5/10", "held-out", "pass@1", "25.0%", "reward", "0.333", "completion_tokens", "180.0"]


def test_a_further_set_has_a_line_of_its_own(screen):
    console, text = screen(steps=10)
    console.log(5, {"eval/pass@1": 0.25, "eval/pass@1_se": 0.02, "eval/aime/pass@1": 0.5})
    assert [line.split() for line in text().splitlines()] == [
        ["5/10", "held-out", "pass@1", "25.0%±2.0"], ["5/10", "aime", "pass@1", "50.0%"]
    ]  # fmt: skip


def test_the_accuracy_is_the_mean_of_the_deciding_reward():
    console = Console(10, "code", Terminal(file=(file := io.StringIO()), width=80, color_system=None))
    console.log(1, STEP | {"reward/code": 0.875})
    assert file.getvalue().splitlines()[-1].split()[2] == "0.875"


def test_a_terminal_wider_than_80_shows_the_bar_of_seconds(screen):
    for width, cells in ((120, 30), (100, 17), (80, 0)):
        console, text = screen(steps=10, width=width, terminal=True)
        console.log(1, STEP)
        row = next(line for line in text().splitlines() if "1/10" in line)
        console.close()
        assert row.count("━") == cells


def test_a_phase_prints_its_duration_and_whether_it_failed(screen):
    console, text = screen(steps=10)
    with console.phase("loading model"):
        assert text() == "… loading model\n"
    assert text().splitlines()[1].startswith("✓ loading model  0.0")
    with pytest.raises(RuntimeError), console.phase("starting engines"):
        raise RuntimeError
    assert text().splitlines()[3].startswith("✗ starting engines  0.0")


def test_the_summary_compares_evaluations_and_names_files(screen):
    console, text = screen(steps=10)
    console.summary(
        before={"eval/pass@1": 0.125, "eval/completion_tokens": 200.0},
        after={"eval/pass@1": 0.5, "eval/pass@4": 0.75, "eval/completion_tokens": 150.0},
        samples=[("What is [b]2 + 3[/b]?", "It is\x1b[31m 5."), ("Count.", "1 " * 900)],
        run_dir=Path("/runs/today"),
        curves_path=Path("/runs/today/curves.png"),
    )
    lines = [line.strip("│ ") for line in text().splitlines()]
    words = [line.split() for line in lines]
    assert ["pass@1", "12.5%", "50.0%", "+37.5%"] in words
    assert ["pass@4", "–", "75.0%", "–"] in words
    assert ["completion_tokens", "200.0", "150.0", "-50.0"] in words
    assert ["prompt", "What", "is", "[b]2", "+", "3[/b]?"] in words
    assert ["completion", "It", "is·[31m", "5."] in words  # a dot for the escape character
    assert ["run", "/runs/today"] in words and ["curves", "/runs/today/curves.png"] in words
    assert text().count("1 1 1") < 200 and " …" in text()
    assert max(len(line) for line in text().splitlines()) == 80


def test_a_summary_without_evaluations_has_no_table(screen):
    console, text = screen(steps=10)
    console.summary(before={}, after={}, samples=[], run_dir=Path("/runs/today"), curves_path=None)
    assert "held-out" not in text() and "/runs/today" in text()


def test_leaving_the_with_block_ends_the_live_line(screen):
    console, text = screen(steps=10, terminal=True)
    with pytest.raises(RuntimeError), console as entered:
        assert entered is console
        console.log(1, STEP)
        raise RuntimeError
    assert text().count("\x1b[?25h") == 1  # the cursor is visible again
    console.close()
    assert text().count("\x1b[?25h") == 1
