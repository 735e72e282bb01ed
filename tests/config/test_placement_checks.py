"""Rules on `placement`: every refusal names the key, the reason and the remedy."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from omegaconf import DictConfig

from rlframe.config.compose import load
from rlframe.errors import ConfigError

Composed = Callable[..., DictConfig]
COLOCATED = ["placement=colocated", "rollout.gpus=1", "learner.gpus=1"]


def test_learner_and_engines_have_gpus_of_their_own_unless_a_run_says_else(composed: Composed) -> None:
    assert load(composed()).placement == "separate"


@pytest.mark.parametrize(
    "settings",
    [
        ["placement=colocated"],
        ["placement=colocated", "rollout.engines=3", "learner.ranks=2"],  # on CPUs any number
        COLOCATED,
        [*COLOCATED, "weights.backend=ipc"],
        [*COLOCATED, "cluster=existing", "+rollout.labels.zone=a", "+learner.labels.rack=b"],
        [*COLOCATED, "rollout.engines=2", "rollout.gpus=4", "learner.ranks=8", "weights.backend=ipc"],
        [*COLOCATED, "learner.offload_optimizer=true", "learner.offload_parameters=true"],
    ],
)
def test_a_colocated_run_that_can_work_is_accepted(composed: Composed, settings: list[str]) -> None:
    assert load(composed(*settings)).placement == "colocated"


@pytest.mark.parametrize(
    "settings, message",
    [
        (
            [*COLOCATED, "max_staleness=1"],
            "max_staleness: with placement=colocated engines sample nothing while the learner computes, so no step can "
            "be 1 ahead; use 0, or placement=separate",
        ),
        (
            ["placement=colocated", "rollout.gpus=2"],
            "learner.gpus: placement=colocated shares GPUs, but learner.gpus=0 beside rollout.gpus=2; set both, or "
            "placement=separate",
        ),
        (
            ["placement=colocated", "learner.gpus=1"],
            "rollout.gpus: placement=colocated shares GPUs, but rollout.gpus=0 beside learner.gpus=1; set both, or "
            "placement=separate",
        ),
        (
            [*COLOCATED, "rollout.engines=2", "rollout.gpus=2", "learner.ranks=2"],
            "learner.ranks: placement=colocated has a rank on every GPU of the engines, which are rollout.engines=2 x "
            "rollout.gpus=2 = 4, not 2; set learner.ranks=4",
        ),
        (
            [*COLOCATED, "rollout.executor=ray"],
            "rollout.executor: ray would reserve GPUs that the ranks of a colocated run have reserved; use mp or auto, "
            "with engines of one machine",
        ),
        (
            [*COLOCATED, "cluster=existing", "+rollout.labels.zone=a", "+learner.labels.zone=b"],
            "rollout.labels: a colocated engine is on the node of its ranks, which cannot have both {'zone': 'a'} and "
            "learner.labels={'zone': 'b'}; use the same labels, or placement=separate",
        ),
        (
            [*COLOCATED, "weights.backend=nccl"],
            "weights.backend: two members of a NCCL group cannot be on the same GPU, as rank and engine are with "
            "placement=colocated; use ipc, which hands over GPU memory in place, or object_store",
        ),
        (
            ["rollout.gpus=1", "learner.gpus=1", "weights.backend=ipc"],
            "weights.backend: ipc hands over memory of a GPU to another process on this GPU, and with "
            "placement=separate no engine shares a GPU with a rank; use placement=colocated, or nccl or object_store",
        ),
    ],
)
def test_a_placement_that_cannot_work_is_refused(composed: Composed, settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        load(composed(*settings))
