"""The gate on train/rollout mismatch: figures in, a warning, a correction or an end out."""

import json
from dataclasses import replace

import pytest

from rlframe.algorithm import DAPO
from rlframe.config.train import MismatchConfig
from rlframe.errors import RunFailed
from rlframe.objective import Objective
from rlframe.objective.correction import Correction, TruncatedImportanceSampling
from rlframe.train.mismatch import MismatchGate, excess

TIS = TruncatedImportanceSampling(name="tis", cap=2.0)


def bounds(action: str = "warn") -> MismatchConfig:
    return MismatchConfig.model_validate({"action": action, "max_k3": 0.01, "max_abs_mean": 0.1})


def measured(k3: float | None, absolute: float = 0.02, staleness: int = 0) -> dict:
    return {"mismatch/k3": k3, "mismatch/abs_mean": absolute, "rollout/staleness_max": staleness}


class Learner:
    def __init__(self) -> None:
        self.objective = Objective(algorithm=DAPO(name="dapo", clip_low=0.2, clip_high=0.28))

    def correct(self, correction: Correction | None) -> None:
        self.objective = replace(self.objective, correction=correction)


class Lines:
    def __init__(self) -> None:
        self.told: list[str] = []

    def warn(self, text: str) -> None:
        self.told.append(text)


def make_gate(action: str) -> tuple[MismatchGate, Learner, Lines]:
    learner, lines = Learner(), Lines()
    return MismatchGate(bounds(action), TIS, learner, lines), learner, lines


def test_what_is_beyond_its_bound_is_told_with_the_figure_the_bound_and_its_key():
    assert excess(measured(0.01, 0.1), bounds()) is None
    assert excess(measured(0.0234), bounds()) == "mismatch/k3 0.0234 > 0.01 (mismatch.max_k3)"
    assert excess(measured(0.02, 0.3), bounds()) == (
        "mismatch/k3 0.02 > 0.01 (mismatch.max_k3), mismatch/abs_mean 0.3 > 0.1 (mismatch.max_abs_mean)"
    )


def test_a_figure_that_is_no_number_is_beyond_its_bound():
    assert excess(measured(float("nan")), bounds()) == "mismatch/k3 nan > 0.01 (mismatch.max_k3)"


def test_stale_tokens_differ_anyway_and_are_not_judged():
    assert excess(measured(5.0, staleness=1), bounds()) is None


def test_a_warning_is_given_once_and_again_after_both_have_agreed():
    gate, _, lines = make_gate("warn")
    for step, k3 in enumerate([0.001, 0.02, 0.03, 0.001, 0.02], start=1):
        gate.judge(step, measured(k3))
    assert [line.partition(":")[0] for line in lines.told] == ["step 2", "step 5"]


def test_a_run_that_is_to_stop_ends_with_the_figures():
    gate, _, _ = make_gate("stop")
    gate.judge(6, measured(0.001))
    with pytest.raises(RunFailed, match=r"step 7: .* mismatch/k3 0.02 > 0.01"):
        gate.judge(7, measured(0.02))


def test_a_correction_is_switched_on_at_the_first_step_beyond_and_stays_on():
    gate, learner, lines = make_gate("correct")
    gate.judge(1, measured(0.001))
    assert learner.objective.correction is None
    gate.judge(2, measured(0.02))
    gate.judge(3, measured(0.001))
    gate.judge(4, measured(0.02))
    assert learner.objective.correction == TIS
    assert len(lines.told) == 1 and lines.told[0].endswith("from now on corrected (tis)")


@pytest.mark.parametrize("k3, on", [(0.02, TIS), (None, TIS), (0.002, None)])
def test_a_resumed_run_is_corrected_where_its_past_was(tmp_path, k3, on):
    file = tmp_path / "metrics.jsonl"
    file.write_text("".join(json.dumps({"step": step} | measured(k3)) + "\n" for step in (1, 2)))
    gate, learner, _ = make_gate("correct")
    gate.resume(file)
    assert learner.objective.correction == on
    make_gate("correct")[0].resume(tmp_path / "no such file")
