"""The death of a rank is told from an exception of living ranks, whatever the other ranks raise meanwhile."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.exceptions import RayError, RayTaskError

from rlframe.actors.calls import numbered, wait
from rlframe.errors import BodyLost, LearnerLost, Stalled
from rlframe.learner.group import LearnerGroup
from rlframe.learner.loss import dead_ranks, loss_of_ranks
from tests.tiny.learner import OBJECTIVE
from tests.tiny.ranks import RankProcesses


class Rank:
    """A rank that raises at once, dies once a file exists, or answers late."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name

    def fail(self, error: Exception) -> None:
        raise error

    def die(self, file: Path) -> None:
        while not file.exists():
            time.sleep(0.01)
        os._exit(1)

    def wake(self, seconds: float = 0.0) -> None:
        time.sleep(seconds)


@pytest.fixture
def ranks(processes: RankProcesses) -> Iterator[list[Any]]:
    """Two ranks that have started; `processes` has started Ray."""
    kind = ray.remote(num_cpus=0)(Rank)
    ranks = [kind.options(name=f"learner-{index}").remote(f"learner-{index}") for index in range(2)]
    ray.get([rank.wake.remote() for rank in ranks])
    yield ranks
    for rank in ranks:
        ray.kill(rank)
    wait_until_dead(ranks)  # the next test's ranks have the same names


def wait_until_dead(ranks: list[Any]) -> None:
    while len(dead_ranks(ranks)) < len(ranks):
        pass


def error_of(calls: list[Any], timeout_s: float = 60.0) -> RayError | Stalled:
    try:
        wait(numbered("learner", calls), "answer", timeout_s, "a test")
    except (RayError, Stalled) as error:
        return error
    pytest.fail("no rank failed")


def test_a_death_is_found_behind_the_error_of_a_rank_in_its_collective(ranks: list[Any], tmp_path: Path) -> None:
    calls = [ranks[0].fail.remote(RuntimeError("Connection closed by peer")), ranks[1].die.remote(tmp_path / "now")]
    error = error_of(calls)  # before the death
    assert isinstance(error, RayTaskError)
    (tmp_path / "now").touch()
    assert (loss_of_ranks(error, calls) or "").startswith("learner-1 failed with ActorDiedError")
    assert dead_ranks(ranks) == ["learner-1"]


def test_an_exception_of_living_ranks_is_no_loss(ranks: list[Any]) -> None:
    calls = [ranks[0].fail.remote(ValueError("a bug")), ranks[1].wake.remote(3600)]  # which waits in a collective
    assert loss_of_ranks(error_of(calls), calls) is None
    assert dead_ranks(ranks) == []


def test_a_rank_without_its_tokens_is_a_loss_that_names_the_prompt(ranks: list[Any]) -> None:
    calls = [ranks[0].fail.remote(BodyLost("the tokens of prompt p7 are lost")), ranks[1].wake.remote(3600)]
    assert (loss_of_ranks(error_of(calls), calls) or "").endswith(": the tokens of prompt p7 are lost")


def test_a_group_ends_all_ranks_with_the_one_that_does_not_answer(ranks: list[Any]) -> None:
    group = LearnerGroup(
        ranks,
        OBJECTIVE,
        micro_batch_tokens=1,
        packing="shared",
        sequence_parallel=1,
        timeout_s=5.0,
        max_skipped=1,
    )
    group.wake()
    ranks[1].wake.remote(3600)
    with pytest.raises(
        LearnerLost, match=r"^learner-1 did not move its state back to its GPU within 5 s \(cluster\.stall"
    ):
        group.wake()
    wait_until_dead(ranks)
    with pytest.raises(LearnerLost, match="failed with ActorDiedError"):
        group.wake()
