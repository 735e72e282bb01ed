"""What real ZeRO-3 ranks hold goes to disk and comes back to as many ranks as there are then, to the last bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from rlframe.learner.config import LearnerConfig
from tests.conftest import compose, tiny_overrides
from tests.learner.conftest import Launch
from tests.tiny.learner import differing, load, make_samples, save, state, step

Start = Callable[..., list[Any]]


@pytest.fixture(scope="module")
def config(tiny_model: Path) -> LearnerConfig:
    return compose([*tiny_overrides(tiny_model), "learner.dtype=bfloat16"]).learner


@pytest.fixture
def start(config: LearnerConfig, tiny_model: Path, launch: Launch) -> Start:
    return lambda ranks, model=tiny_model: launch(config, model, ranks)


def test_what_two_ranks_saved_one_and_three_load_to_the_last_bit_and_go_on_with_and_save_for_two(
    start: Start, tmp_path: Path
) -> None:
    two = start(2)
    parts = ray.get(two[0].__ray_call__.remote(lambda rank: len(rank.optimizer.fp32_partitioned_groups_flat)))
    assert parts > 1  # of what the optimizer holds, as of a model with more than 33M parameters
    for version in range(2):
        step(two, version)
    save(two, tmp_path / "two")
    saved = state(two)
    assert {name.split()[0] for name in saved} == {"model", "master", "exp_avg", "exp_avg_sq", "step"}
    assert {float(value) for name, value in saved.items() if name.startswith("step")} == {2.0}
    after = [a["loss"] for a in step(two, 2)]
    for ranks in (1, 3):
        others = start(ranks)
        assert differing(saved, state(others)) != []
        load(others, tmp_path / "two")
        assert differing(saved, state(others)) == []
        save(others, tmp_path / str(ranks))
        assert len(list((tmp_path / str(ranks)).iterdir())) == ranks
        assert sum(a["loss"] for a in step(others, 2)) == pytest.approx(sum(after), rel=1e-3)
        load(two, tmp_path / str(ranks))  # over three steps of its own
        assert differing(saved, state(two)) == []


def test_a_state_holds_what_was_there_when_it_was_copied_whatever_is_learned_while_it_is_written(
    start: Start, tmp_path: Path
) -> None:
    one = start(1)
    step(one, 0)
    before = state(one)
    ray.get([handle.save.remote(tmp_path / "saved", None) for handle in one])
    step(one, 1)
    while not ray.get(one[0].saved.remote()):
        pass
    assert differing(before, state(one)) != []
    load(one, tmp_path / "saved")
    assert differing(before, state(one)) == []


def test_steps_that_were_skipped_are_remembered_for_the_schedule(start: Start, tmp_path: Path) -> None:
    one = start(1)
    spoiled = make_samples()
    spoiled[0].advantages[:] = np.nan
    step(one, 0, spoiled)  # before the optimizer has any state
    save(one, tmp_path / "saved")
    [other] = others = start(1)
    load(others, tmp_path / "saved")
    assert differing(state(one), state(others)) == []
    skipped = ray.get(other.__ray_call__.remote(lambda rank: rank.skipped))
    assert skipped == 1


def test_a_writer_that_cannot_write_is_an_error_of_its_rank(start: Start, tmp_path: Path) -> None:
    one = start(1)
    (tmp_path / "saved").write_text("a file where a folder should be")
    with pytest.raises(ray.exceptions.RayTaskError, match=r"learner-0[\s\S]*FileExistsError"):
        save(one, tmp_path / "saved")


def test_a_state_of_another_model_is_refused_by_the_parameter_that_differs(
    start: Start, untied_model: Path, tmp_path: Path
) -> None:
    save(start(1), tmp_path / "tied")
    untied = start(1, untied_model)
    with pytest.raises(ray.exceptions.RayTaskError, match=r"is of another learner: model.lm_head.weight has there"):
        load(untied, tmp_path / "tied")
