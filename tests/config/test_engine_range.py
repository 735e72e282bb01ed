"""`rollout.engines`: a number, or a range in which the pool grows and shrinks."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from rlframe.cluster.placement import cpu_demand, placement
from rlframe.config.compose import load, merge_saved, save
from rlframe.config.run import RunConfig
from rlframe.errors import ConfigError

Composed = Callable[..., DictConfig]
RANGE = "rollout.engines={min: 2, max: 5}"


@pytest.mark.parametrize(
    "settings, message",
    [
        (
            ["rollout.engines={min: 3, max: 1}"],
            "rollout.engines: min: 3 is above max: 1; set max to 3 or more, or lower min",
        ),
        (["rollout.engines=0"], "rollout.engines: a run needs at least 1 engine, not 0"),
        (["rollout.engines=two"], "rollout.engines: must be a number of engines, or {min: 2, max: 8}, not 'two'"),
        (["rollout.engines={min: 2}"], "rollout.engines.max: is missing"),
        (
            [RANGE, "placement=colocated"],
            "rollout.engines: {min: 2, max: 5} lets engines come and go, and with placement=colocated every engine "
            "stays on the GPUs of its ranks; use rollout.engines=5, or placement=separate",
        ),
        (
            [RANGE, "weights.backend=nccl", "rollout.gpus=1", "learner.gpus=1"],
            "rollout.engines: {min: 2, max: 5} lets engines join at any time, and weights.backend=nccl sends weights "
            "once in a step, to engines that wait for each other; use weights.backend=object_store, or "
            "rollout.engines=5",
        ),
        (
            [RANGE, "rollout.episode_workers=3"],
            "rollout.episode_workers: 3 cannot share rollout.engines={min: 2, max: 5}, as each needs an engine; use at "
            "most 2, or null",
        ),
    ],
)
def test_engines_that_cannot_be_are_refused(composed: Composed, settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        load(composed(*settings))


def test_a_range_starts_with_its_least_and_reserves_its_most(composed: Composed) -> None:
    run = load(composed(RANGE, "rollout.cpus=3", "learner.ranks=1", "learner.cpus=2", "reward.cpus=1"))
    assert len(placement(run)["rollout"]) == 2
    assert cpu_demand(run) == 5 * 3 + 2 + 1
    assert cpu_demand(run, ["learner"]) == 2


def test_a_saved_range_is_replaced_by_a_number_and_back(composed: Composed, tmp_path: Path) -> None:
    number: RunConfig | DictConfig = composed("rollout.engines=4")
    file = tmp_path / "config.yaml"
    for override, written in ((RANGE, {"min": 2, "max": 5}), ("rollout.engines=3", 3)):
        save(load(number), file)
        number = merge_saved(file, composed(override), [override])
        save(load(number), file)
        assert OmegaConf.load(file).rollout.engines == written
