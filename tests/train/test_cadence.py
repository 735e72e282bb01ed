"""Checkpoints follow at fixed distances, and after a loss at distances that double."""

from __future__ import annotations

from rlframe.train.cadence import Cadence


def saved(cadence: Cadence, first: int, last: int, *, busy: bool = False) -> list[int]:
    steps = []
    for step in range(first, last + 1):
        if cadence.due(step, busy=busy):
            cadence.note_saved(step)
            steps.append(step)
    return steps


def test_a_run_without_losses_saves_every_ten_steps():
    assert saved(Cadence(10), 1, 45) == [10, 20, 30, 40]


def test_distances_double_after_a_loss_up_to_the_usual_one():
    cadence = Cadence(10)
    assert saved(cadence, 1, 13) == [10]
    cadence.note_loss(14)
    assert saved(cadence, 11, 60) == [14, 16, 20, 28, 30, 40, 50, 60]


def test_nothing_is_saved_early_while_a_checkpoint_is_written():
    cadence = Cadence(10)
    cadence.note_loss(4)
    assert saved(cadence, 1, 25, busy=True) == [10, 20]


def test_a_run_without_checkpoints_saves_none_after_a_loss():
    cadence = Cadence(0)
    cadence.note_loss(3)
    assert saved(cadence, 1, 30) == []
