"""The end of a run by signals: a checkpoint of a whole state, or none."""

import os
import signal
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from rlframe.train.session import running
from rlframe.train.signals import Stop, StopSignals


@pytest.fixture
def signals() -> Iterator[StopSignals]:
    handler = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    stop_signals = StopSignals()
    stop_signals.listen()
    yield stop_signals
    signal.signal(signal.SIGINT, handler[0])
    signal.signal(signal.SIGTERM, handler[1])


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
