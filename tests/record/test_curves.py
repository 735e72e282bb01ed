"""The picture of a run."""

import json
from pathlib import Path

import matplotlib.image
import pytest

from rlframe.record.curves import draw, draw_run, plot, plot_tuning
from rlframe.record.directory import RunDir

REWARDS, LENGTHS, MISMATCH, SECONDS = range(4)


def row(step: int, **changes: float) -> dict:
    metrics = {
        "step": step, "reward/mean": step / 10, "rollout/completion_tokens": 100.0, "mismatch/k3": 1e-3,
        "time/step_s": 10.0, "time/rollout_wait_s": 5.0, "time/learner_s": 3.0, "time/weight_sync_s": 0.5,
    }  # fmt: skip
    return metrics | changes


def written(path: Path, lines: list[dict]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_picture_of_one_step_has_1690_by_1014_pixels(tmp_path):
    draw(written(tmp_path / "metrics.jsonl", [row(1)]), tmp_path / "curves.png", None, "math")
    assert matplotlib.image.imread(tmp_path / "curves.png").shape == (1014, 1690, 4)


def test_a_run_without_metrics_has_four_empty_panels(tmp_path):
    draw(written(tmp_path / "metrics.jsonl", []), tmp_path / "curves.png", [], "math")
    assert (tmp_path / "curves.png").exists()
    assert [[text.get_text() for text in axes.texts] for axes in plot([], [], "math").axes] == [["not measured"]] * 4


def test_a_file_with_a_torn_line_is_drawn(tmp_path):
    file = written(tmp_path / "metrics.jsonl", [row(1), {"step": 1, "reward/math": 0.5}])
    file.write_text(file.read_text() + '{"step": 2, "rew')
    draw(file, tmp_path / "curves.png", None, "math")
    assert matplotlib.image.imread(tmp_path / "curves.png").shape[:2] == (1014, 1690)


def test_seconds_without_a_name_are_drawn_as_the_rest():
    bars = plot([row(1)], [], "math").axes[SECONDS].containers
    assert {bar.get_label(): bar.patches[0].get_height() for bar in bars} == {
        "rollout wait": 5.0, "learner": 3.0, "weights": 0.5, "rest": 1.5,
    }  # fmt: skip


def test_a_step_with_a_null_reward_is_left_out():
    rows = [row(1), row(2) | {"reward/mean": None}, row(3)]
    [reward] = plot(rows, [], "math").axes[REWARDS].lines
    assert list(reward.get_xdata()) == [1, 3]
    assert list(reward.get_ydata()) == [0.1, 0.3]


def test_ten_steps_get_a_running_mean_of_five():
    faint, bold = plot([row(step) for step in range(1, 11)], [], "math").axes[REWARDS].lines
    assert faint.get_ydata()[-1] == pytest.approx(1.0)
    assert bold.get_ydata()[0] == pytest.approx(0.1)
    assert bold.get_ydata()[-1] == pytest.approx((0.6 + 0.7 + 0.8 + 0.9 + 1.0) / 5)


def test_mismatch_is_logarithmic_if_every_value_is_positive():
    assert plot([row(1)], [], "math").axes[MISMATCH].get_yscale() == "log"
    assert plot([row(1), row(2) | {"mismatch/k3": 0.0}], [], "math").axes[MISMATCH].get_yscale() == "linear"


def test_held_out_accuracy_is_drawn_with_the_rewards():
    evaluations = [{"step": 0, "eval/pass@1": 0.1, "eval/pass@4": 0.3}, {"step": 2, "eval/pass@1": 0.5}]
    axes = plot([row(1), row(2)], evaluations, "math").axes[REWARDS]
    [held_out] = [line for line in axes.lines if line.get_label() == "held-out pass@1"]
    assert list(held_out.get_xdata()) == [0, 2]
    assert list(held_out.get_ydata()) == [0.1, 0.5]


def test_every_held_out_set_and_the_deciding_reward_are_drawn():
    evaluations = [{"step": 2, "eval/pass@1": 0.5, "eval/aime/pass@1": 0.25, "eval/aime/pass@1_se": 0.1}]
    axes = plot([row(1, **{"reward/code": 0.75}), row(2)], evaluations, "code").axes[REWARDS]
    heights = {line.get_label(): list(line.get_ydata()) for line in axes.lines}
    assert heights == {"reward": [0.1, 0.2], "accuracy": [0.75], "held-out pass@1": [0.5], "aime pass@1": [0.25]}


def test_no_legend_covers_a_title():
    tokens = {"rows/tokens": 9.0, "learner/tokens": 7.0, "rows/trained_tokens": 5.0}
    pair = {"rows/accuracy": 0.5, "rows/margin": 0.1, "rows/chosen": -1.0, "rows/rejected": -2.0}
    tuned = [row(step) | tokens | {"learner/loss": 2.0, "learner/grad_norm": 1.0} for step in range(1, 13)]
    evaluations = [{"step": 0.0, "eval/loss": 2.0, "eval/exact": 0.0, "eval/pass@1": 0.5, "eval/long/pass@1": 0.5}]
    many = [evaluations[0] | {f"eval/set{number}/pass@1": 0.1 for number in range(4)}]
    figures = [
        plot_tuning(tuned, evaluations),
        plot_tuning([each | pair for each in tuned], evaluations),
        *(plot([each | {"reward/math": 0.5} for each in tuned], sets, "math") for sets in (evaluations, many)),
    ]
    for figure in figures:
        figure.draw_without_rendering()
        legends = [axes for axes in figure.axes if axes.get_legend()]
        assert len(legends) >= 2
        for axes in legends:
            title = axes.get_title(loc="left")
            [text] = [child for child in axes.get_children() if getattr(child, "get_text", str)() == title]
            assert not text.get_window_extent().overlaps(axes.get_legend().get_window_extent()), title


def test_a_picture_that_the_disk_does_not_take_is_a_warning(tmp_path):
    files, warnings = RunDir(tmp_path), []
    draw_run(files, "math", warnings.append)
    assert not files.curves.exists()
    written(files.metrics, [row(1)])
    files.curves.mkdir()  # so that the file cannot be written
    draw_run(files, "math", warnings.append)
    assert len(warnings) == 1 and warnings[0].startswith(f"{files.curves} is not drawn: ")
