"""A tuning run's context, beside what whole runs show."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rlframe.algorithm import SFT
from rlframe.errors import LearnerLost
from rlframe.record.evaluations import read_evaluations
from rlframe.record.reference_sums import ReferenceSums
from rlframe.train.cadence import Cadence
from rlframe.train.row_feed import row_digest
from rlframe.train.tune_context import TuneContext
from rlframe.training import GroupRecord, Likelihood
from tests.tiny.groups import make_record


class MortalLearner:
    """A learner that is lost in its first call, and whose second `ask` is lost too."""

    def __init__(self) -> None:
        self.calls = 0

    def ask(self, groups: list[GroupRecord]) -> list[GroupRecord]:
        self.calls += 1
        if self.calls == 2:
            raise LearnerLost("learner-0 died")
        asked = [np.full(length, -0.5, np.float32) for length in groups[0].lengths]
        return [replace(group, asked=asked) for group in groups]

    def likelihoods(self, groups: list[Any]) -> list[Likelihood]:
        self.calls += 1
        if self.calls == 1:
            raise LearnerLost("learner-0 died")
        return [
            Likelihood(logprob_sum=-3.0, tokens=4, greedy=True),
            Likelihood(logprob_sum=-2.0, tokens=1, greedy=False),
        ]


def test_a_rank_lost_while_the_reference_answers_costs_one_part(tmp_path: Path) -> None:
    stub: Any = SimpleNamespace
    rows = [make_record([0.0, 0.0], [2, 4], name=f"row {n}", prompt_tokens=n + 1) for n in range(5)]
    sums = ReferenceSums(tmp_path / "reference.jsonl", "m", "float32")
    learner = MortalLearner()
    shown: list[int] = []
    context: Any = stub(
        reference=sums,
        rows=stub(planned=4, per_step=2, stream=stub(rows=rows[1:]), every_row=lambda: iter(rows[1:])),
        heldout=rows[:1],
        generation=stub(check=lambda: None),
        learner=learner,
        console=stub(phase=lambda *_: nullcontext(shown.append)),
    )
    with pytest.raises(LearnerLost):
        TuneContext.complete_reference(context)
    TuneContext.complete_reference(context)
    TuneContext.complete_reference(context)  # finds all of it
    assert (learner.calls, shown) == (4, [2, 2, 4])  # rows 0 and 1; lost; row 2, since 1 is there; rows 3 and 4
    again = ReferenceSums(sums.path, "m", "float32")
    assert [again.of(row_digest(row), "") for row in rows] == [[-1.0, -2.0]] * 5


def test_ranks_lost_in_the_first_evaluation_are_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stub: Any = SimpleNamespace
    recovered: list[str] = []
    ctx = TuneContext(
        run=stub(resume=None, algorithm=SFT(name="sft"), evaluation_every=3, last_step=6),
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
