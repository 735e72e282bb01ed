"""The end of a run by signals: a checkpoint of a whole state, or none."""

import os
import signal
from types import SimpleNamespace
from typing import Any

import pytest

from rlframe.train.session import running
from rlframe.train.signals import Stop, StopSignals


@pytest.mark.parametrize(("count", "checkpoints"), [(1, [7]), (2, [])])
def test_a_step_that_a_second_signal_cuts_short_is_not_saved(
    signals: StopSignals, count: int, checkpoints: list[int]
) -> None:
    saved, lines = [], []
    ctx: Any = SimpleNamespace(
        step=7,
        signals=signals,
        save=lambda: saved.append(ctx.step),
        checkpoints=SimpleNamespace(wait=lambda: None, newest=None),
        console=SimpleNamespace(warn=lines.append, stopped=lambda *_: None),
        files=SimpleNamespace(path=None),
    )
    with pytest.raises(Stop), running(ctx, lambda: None), signals.held_back():
        for _ in range(count):
            os.kill(os.getpid(), signal.SIGINT)
    assert saved == checkpoints
    assert lines == ["step 7 gets no checkpoint: a second signal cut short a step or a checkpoint"][: count - 1]
