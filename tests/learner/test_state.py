"""A state saved by real ZeRO-3 ranks loads on any number of ranks, to the last bit."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from rlframe.learner import state as learner_state
from rlframe.learner.config import LearnerConfig
from rlframe.learner.rank import LearnerRank
from tests.conftest import compose, tiny_overrides
from tests.learner.conftest import Launch
from tests.tiny.learner import differing, load, make_samples, save, state, step
from tests.tiny.ranks import RankProcesses

Start = Callable[..., list[Any]]


@pytest.fixture(scope="module", autouse=True)
def by_value() -> None:
    """Sends this module's functions to the ranks' processes, which cannot import it."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope="module")
def config(tiny_model: Path) -> LearnerConfig:
    return compose([*tiny_overrides(tiny_model), "learner.dtype=bfloat16"]).learner


@pytest.fixture
def start(config: LearnerConfig, tiny_model: Path, launch: Launch) -> Start:
    return lambda ranks, model=tiny_model: launch(config, model, ranks)


def test_one_and_three_ranks_continue_from_the_files_of_two(start: Start, tmp_path: Path) -> None:
    two = start(2)
    subgroups = ray.get(two[0].__ray_call__.remote(lambda rank: len(rank.optimizer.fp32_partitioned_groups_flat)))
    assert subgroups > 1  # flat tensors of the optimizer, as in a model with more than 33M parameters
    for version in range(2):
        step(two, version)
    save(two, tmp_path / "two")
    saved = state(two)
    assert {name.split()[0] for name in saved} == {"model", "master", "exp_avg", "exp_avg_sq", "step"}
    assert {float(value) for name, value in saved.items() if name.startswith("step")} == {2.0}
    losses = [a["loss"] for a in step(two, 2)]
    for ranks in (1, 3):
        resumed = start(ranks)
        assert differing(saved, state(resumed)) != []
        load(resumed, tmp_path / "two")
        assert differing(saved, state(resumed)) == []
        save(resumed, tmp_path / str(ranks))
        assert len(list((tmp_path / str(ranks)).iterdir())) == ranks
        assert sum(a["loss"] for a in step(resumed, 2)) == pytest.approx(sum(losses), rel=1e-3)
        load(two, tmp_path / str(ranks))  # replaces the state of three steps
        assert differing(saved, state(two)) == []


def test_offloaded_ranks_continue_from_the_files_of_ranks_on_the_device(
    config: LearnerConfig, tiny_model: Path, launch: Launch, tmp_path: Path
) -> None:
    offload = config.model_copy(update={"offload_optimizer": True, "offload_parameters": True})
    on_device, offloaded = launch(config, tiny_model, 2), launch(offload, tiny_model, 2)
    directions = {"there": (on_device, offloaded), "back": (offloaded, on_device)}
    for folder, (source, target) in ((tmp_path / name, ranks) for name, ranks in directions.items()):
        step(source, 0)
        save(source, folder)
        saved = state(source)
        assert differing(saved, state(target)) != []
        load(target, folder)
        assert differing(saved, state(target)) == []


def test_a_step_during_the_writing_does_not_change_the_saved_state(start: Start, tmp_path: Path) -> None:
    one = start(1)
    step(one, 0)
    copied = state(one)
    ray.get([handle.save.remote(tmp_path / "saved", None) for handle in one])
    step(one, 1)
    while ray.get(one[0].saved.remote()) is None:
        pass
    assert differing(copied, state(one)) != []
    load(one, tmp_path / "saved")
    assert differing(copied, state(one)) == []


def test_a_resumed_schedule_does_not_count_skipped_steps(start: Start, tmp_path: Path) -> None:
    one = start(1)
    spoiled = make_samples()
    spoiled[0].advantages[:] = np.nan
    step(one, 0, spoiled)  # before the optimizer has any state
    save(one, tmp_path / "saved")
    resumed = start(1)
    load(resumed, tmp_path / "saved")
    assert differing(state(one), state(resumed)) == []
    skipped = ray.get(resumed[0].__ray_call__.remote(lambda rank: rank.skipped))
    assert skipped == 1


def devices_of_restored_state(rank: LearnerRank, folder: Path, fused: bool) -> dict[str, str]:
    """Restores into master weights that are on torch's device without storage, in place of a GPU."""
    flats = rank.optimizer.fp32_partitioned_groups_flat
    flats[:] = [flat.detach().to("meta") for flat in flats]
    torch_optimizer = rank.optimizer.optimizer
    torch_optimizer.state.clear()
    for group in torch_optimizer.param_groups:
        group["fused"] = fused
    learner_state.restore(rank.engine.module, rank.optimizer, folder)
    return {kind: value.device.type for state in torch_optimizer.state.values() for kind, value in state.items()}


def test_a_restored_state_is_where_torchs_fused_and_plain_adam_read_it(start: Start, tmp_path: Path) -> None:
    one = start(1)
    step(one, 0)
    save(one, tmp_path)
    moments = {"exp_avg": "meta", "exp_avg_sq": "meta"}
    for fused, place in ((True, "meta"), (False, "cpu")):
        devices = ray.get(one[0].__ray_call__.remote(devices_of_restored_state, tmp_path, fused))
        assert devices == {**moments, "step": place}


def test_a_failed_write_is_in_the_report_of_its_rank(start: Start, tmp_path: Path) -> None:
    one = start(1)
    (tmp_path / "saved").write_text("a file where a folder should be")
    [report] = save(one, tmp_path / "saved")
    assert (report.writer, report.files) == ("learner-0", [])
    assert report.error == f"FileExistsError: [Errno 17] File exists: '{tmp_path / 'saved'}'"


def fill_disk(rank: LearnerRank) -> None:
    """Lets the rank's process write no file beyond 100 kB, which is less than its state."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))


def test_a_disk_that_takes_a_part_of_the_state_is_in_the_report(
    config: LearnerConfig, tiny_model: Path, processes: RankProcesses, tmp_path: Path
) -> None:
    one = RankProcesses().launch(config, tiny_model, 1)  # a process of its own, which the limit spoils
    try:
        ray.get(one[0].__ray_call__.remote(fill_disk))
        [report] = save(one, tmp_path)
        assert report.files == [] and "File too large" in (report.error or "")
    finally:
        ray.kill(one[0].process)


def test_an_error_names_the_parameter_that_another_models_state_lacks(
    start: Start, untied_model: Path, tmp_path: Path
) -> None:
    save(start(1), tmp_path / "tied")
    untied = start(1, untied_model)
    with pytest.raises(ray.exceptions.RayTaskError, match=r"is of another learner: model.lm_head.weight has there"):
        load(untied, tmp_path / "tied")
