"""Ranks fetch the tokens of planned samples, and train on them as on samples that have their tokens."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from ray.exceptions import ObjectLostError

from rlframe.batch.records import to_record
from rlframe.batch.samples import to_samples
from rlframe.batch.sequences import to_train_sample
from rlframe.errors import RunFailed
from rlframe.learner.bodies import Bodies
from rlframe.learner.config import LearnerConfig
from rlframe.learner.group import LearnerGroup
from rlframe.training import GroupRecord, PlannedSample, RatedGroup, StepReport, TrainSample
from rlframe.types import ScoredGroup
from tests.conftest import compose, tiny_overrides
from tests.learner.conftest import Launch
from tests.tiny.groups import make_group
from tests.tiny.learner import OBJECTIVE, differing, state
from tests.tiny.ranks import RankProcesses
from tests.tiny.trees import make_tree_group


@pytest.fixture(scope="module")
def config(tiny_model: Path) -> LearnerConfig:
    return compose(tiny_overrides(tiny_model)).learner


def plan(records: list[GroupRecord], oldest_version: int | None = None) -> list[PlannedSample]:
    """Samples of trajectories with the advantages 1, -1, 1, ..."""
    rated = [
        RatedGroup(scored=record, advantages=[(-1.0) ** g for g in range(len(record.rewards))]) for record in records
    ]
    return to_samples(rated, OBJECTIVE.algorithm, oldest_version)


def tree_records() -> list[GroupRecord]:
    """Groups of trees in the object store, and a group that is its own body."""
    rng = np.random.default_rng(3)
    groups = [make_tree_group(rng, f"p{number}", trajectories=4) for number in range(4)]
    return [to_record(group, group if number == 0 else ray.put(group), "") for number, group in enumerate(groups)]


def with_tokens(planned: list[PlannedSample]) -> list[TrainSample]:
    return [
        to_train_sample(sample, sample.body if isinstance(sample.body, ScoredGroup) else ray.get(sample.body))
        for sample in planned
    ]


def group_of(handles: list[Any]) -> LearnerGroup:
    return LearnerGroup(
        handles,
        OBJECTIVE,
        micro_batch_tokens=128,
        packing="shared",
        sequence_parallel=1,
        timeout_s=60.0,
        max_skipped=3,
    )


def untimed(report: StepReport) -> dict[str, float]:
    return {name: value for name, value in report.metrics.items() if "seconds" not in name}


def test_two_ranks_train_on_references_as_on_tokens(config: LearnerConfig, tiny_model: Path, launch: Launch) -> None:
    one, other = launch(config, tiny_model, 2), launch(config, tiny_model, 2)
    planned = plan(tree_records())
    fetched, sent = group_of(one).step(planned), group_of(other).step(with_tokens(planned))
    assert untimed(fetched) == untimed(sent)
    assert fetched.metrics["learner/shared_tokens"] > 0 and fetched.metrics["learner/grad_norm"] > 0
    assert differing(state(one), state(other)) == []


def test_a_step_of_old_tokens_only_has_no_gradient_and_no_means(
    config: LearnerConfig, tiny_model: Path, launch: Launch
) -> None:
    report = group_of(launch(config, tiny_model, 1)).step(plan(tree_records(), oldest_version=6))
    assert (report.metrics["learner/grad_norm"], report.metrics["mismatch/tokens"]) == (0.0, 0.0)
    assert "policy/k3" not in report.metrics and report.metrics["learner/skipped"] == 0.0


def test_all_samples_of_a_reference_share_a_body_that_is_fetched_once(processes: RankProcesses) -> None:
    scored = make_group([1.0, 0.0], [3, 3])
    experts = np.zeros((4, 1, 2), np.uint8)
    completions = [replace(completion, routed_experts=experts) for completion in scored.group.completions]
    group = replace(scored, group=type(scored.group).single_turn(scored.group.prompt, completions))
    planned = plan([to_record(group, ray.put(group), "")])
    # Both completions have the same array, and a copy of the body would have a copy of the array.
    first, second = Bodies(planned).build(planned)
    assert first.routed_experts is second.routed_experts is not None


def test_a_body_whose_owner_died_is_named_by_its_prompt(processes: RankProcesses) -> None:
    @ray.remote(num_cpus=0)
    class Owner:
        def put(self) -> list[Any]:
            group = make_group([1.0, 0.0], [100_000, 100_000])  # too large to be sent inline
            return [ray.put(group), ray.put(group)]

    owner: Any = Owner.remote()
    body, witness = ray.get(owner.put.remote())
    planned = plan([to_record(make_group([1.0, 0.0], [3, 3], name="p7"), body, "episodes-0")])
    ray.kill(owner)
    with pytest.raises(ObjectLostError):
        while True:  # until Ray has noticed the owner's death
            ray.get(witness)
    with pytest.raises(RunFailed, match=r"the tokens of prompt p7 are lost: .*resume="):
        Bodies(planned)
