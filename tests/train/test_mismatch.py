"""The mismatch gate: figures in; a warning, a correction or the end of the run out."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from rlframe.algorithm import DAPO
from rlframe.config.train import MismatchConfig
from rlframe.errors import RunFailed
from rlframe.objective.correction import Correction, TruncatedImportanceSampling
from rlframe.objective.objective import Objective
from rlframe.train.mismatch import MismatchGate, excess, figures

TIS = TruncatedImportanceSampling(name="tis", cap=2.0)


def bounds(action: str = "warn") -> MismatchConfig:
    fresh, stale = {"max_k3": 0.01, "max_abs_mean": 0.1}, {"max_k3_stale": 0.05, "max_abs_mean_stale": 0.3}
    return MismatchConfig.model_validate({"action": action} | fresh | stale)


def measured(k3: float, absolute: float = 0.02, tokens: int = 64, stale_tokens: int = 0) -> dict[str, float]:
    """Metrics of a step with equal figures for tokens of both ages."""
    counts = {"mismatch/tokens": tokens, "mismatch/tokens_stale": stale_tokens}
    metrics: dict[str, float] = dict(counts)
    for key, count in counts.items():
        if count:
            suffix = key.removeprefix("mismatch/tokens")
            metrics |= {f"mismatch/k3{suffix}": k3, f"mismatch/abs_mean{suffix}": absolute}
    return metrics


def verdict(k3: float, absolute: float = 0.02, **counts: int) -> str | None:
    return excess(figures(measured(k3, absolute, **counts)), bounds())


class Learner:
    def __init__(self) -> None:
        self.objective = Objective(algorithm=DAPO(name="dapo", clip_low=0.2, clip_high=0.28))

    def correct(self, corrections: Sequence[Correction]) -> None:
        self.objective = replace(self.objective, corrections=corrections)


class Lines:
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def make_gate(action: str) -> tuple[MismatchGate, Learner, Lines]:
    learner, lines = Learner(), Lines()
    return MismatchGate(bounds(action), [TIS], learner, lines), learner, lines


def test_an_excess_names_figure_bound_and_key():
    assert verdict(0.01, 0.1) is None
    assert verdict(0.0234) == "mismatch/k3 0.0234 > 0.01 (mismatch.max_k3)"
    assert verdict(0.02, 0.3) == (
        "mismatch/k3 0.02 > 0.01 (mismatch.max_k3), mismatch/abs_mean 0.3 > 0.1 (mismatch.max_abs_mean)"
    )


def test_an_infinite_figure_is_beyond_every_bound():
    assert verdict(math.inf) == "mismatch/k3 inf > 0.01 (mismatch.max_k3)"


def test_stale_tokens_have_bounds_of_their_own():
    assert verdict(0.05, 0.3, tokens=0, stale_tokens=64) is None
    assert verdict(0.06, 0.3, tokens=0, stale_tokens=64) == "mismatch/k3_stale 0.06 > 0.05 (mismatch.max_k3_stale)"
    assert verdict(0.02, tokens=64, stale_tokens=64) == "mismatch/k3 0.02 > 0.01 (mismatch.max_k3)"


def test_63_tokens_of_an_age_are_too_few_to_judge():
    assert verdict(5.0, tokens=63, stale_tokens=63) is None
    assert verdict(0.02, tokens=63, stale_tokens=10_000) is None


def test_a_step_that_is_not_judged_neither_warns_nor_ends_a_streak():
    gate, _, lines = make_gate("warn")
    for step, metrics in enumerate([measured(0.02), measured(0.0, tokens=0), measured(0.03)], start=1):
        gate.judge(step, metrics)
    assert [line.partition(":")[0] for line in lines.warnings] == ["step 1"]


def test_a_warning_comes_once_until_both_agree_again():
    gate, _, lines = make_gate("warn")
    for step, k3 in enumerate([0.001, 0.02, 0.03, 0.001, 0.02], start=1):
        gate.judge(step, measured(k3))
    assert [line.partition(":")[0] for line in lines.warnings] == ["step 2", "step 5"]


def test_action_stop_ends_the_run_with_the_figures():
    gate, _, _ = make_gate("stop")
    gate.judge(6, measured(0.001))
    with pytest.raises(RunFailed, match=r"step 7: .* mismatch/k3 0.02 > 0.01"):
        gate.judge(7, measured(0.02))


def test_action_correct_switches_on_once_and_stays_on():
    gate, learner, lines = make_gate("correct")
    gate.judge(1, measured(0.001))
    assert learner.objective.corrections == ()
    gate.judge(2, measured(0.02))
    gate.judge(3, measured(0.001))
    gate.judge(4, measured(0.02))
    assert learner.objective.corrections == [TIS]
    assert len(lines.warnings) == 1 and lines.warnings[0].endswith("from now on corrected (tis)")


@pytest.mark.parametrize("k3, corrections", [(0.02, [TIS]), (0.002, ())])
def test_a_resumed_run_is_corrected_if_the_saved_one_was(k3, corrections):
    gate, _, _ = make_gate("correct")
    gate.judge(1, measured(k3))
    resumed, learner, lines = make_gate("correct")
    resumed.restore(json.loads(json.dumps(gate.state())))
    assert learner.objective.corrections == corrections
    resumed.judge(2, measured(k3))
    assert len(lines.warnings) == 0


def test_a_run_resumed_with_another_action_is_not_corrected():
    gate, _, _ = make_gate("correct")
    gate.judge(1, measured(0.02))
    resumed, learner, _ = make_gate("warn")
    resumed.restore(gate.state())
    assert learner.objective.corrections == ()


def test_a_resumed_run_does_not_repeat_its_warning():
    gate, _, _ = make_gate("warn")
    gate.judge(1, measured(0.02))
    resumed, _, lines = make_gate("warn")
    resumed.restore(gate.state())
    resumed.judge(2, measured(0.02))
    assert lines.warnings == []
