"""A tuning run's context, beside what whole runs show."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest

from rlframe.errors import LearnerLost
from rlframe.record.evaluations import read_evaluations
from rlframe.train.cadence import Cadence
from rlframe.train.tune_context import TuneContext
from rlframe.training import Likelihood


class MortalLearner:
    """A learner that is lost in its first call."""

    def __init__(self) -> None:
        self.calls = 0

    def likelihoods(self, groups: list[Any]) -> list[Likelihood]:
        self.calls += 1
        if self.calls == 1:
            raise LearnerLost("learner-0 died")
        return [
            Likelihood(logprob_sum=-3.0, tokens=4, greedy=True),
            Likelihood(logprob_sum=-2.0, tokens=1, greedy=False),
        ]


def test_ranks_lost_in_the_first_evaluation_are_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stub: Any = SimpleNamespace
    recovered: list[str] = []
    ctx = TuneContext(
        run=stub(resume=None, evaluation_every=3, last_step=6),
        files=stub(metrics=tmp_path / "metrics.jsonl", evaluations=tmp_path / "evaluations.jsonl"),
        generation=stub(check=lambda: None),
        console=stub(phase=lambda _: nullcontext()),
        signals=stub(raise_held_back=lambda: None),
        learner=stub(likelihoods=MortalLearner().likelihoods),
        checkpoints=stub(check_folder=lambda: None),
        cadence=Cadence(3),
        checkpoint_due=Event(),
        recovery=stub(repeat=lambda act: act(), recover=lambda lost: recovered.append(str(lost)) or 0),
        rows=stub(),
        heldout=[],
    )
    monkeypatch.setattr(TuneContext, "open_sinks", lambda self, logged: None)
    assert ctx.restore() == 0
    assert recovered == ["learner-0 died"]
    # 5 nats over 5 tokens; one of two rows is what greedy sampling writes
    assert read_evaluations(tmp_path / "evaluations.jsonl") == [{"step": 0, "eval/loss": 1.0, "eval/exact": 0.5}]
