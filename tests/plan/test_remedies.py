"""Remedies: each is verified by another plan, and a config that the checks refuse is none."""

import json

import pytest

from rlframe.plan.machines import parse_cluster
from rlframe.plan.plan import make_plan
from rlframe.plan.remedies import find_remedy, with_keys
from tests.plan.conftest import DEEPSEEK_V3, QWEN3_8B, TINY, shapes_of

GPUS = ("learner.gpus=1", "rollout.gpus=1", "weights.backend=nccl", "learner.micro_batch_tokens=8192")


def plan(run, settings, cluster, **sizes):
    return make_plan(run, shapes_of(settings), parse_cluster(cluster, **sizes))


def test_a_run_that_fits_needs_no_remedy(run_of):
    found = plan(run_of(TINY), TINY, "1xcpu")
    assert found.fits and find_remedy(found) is None


@pytest.mark.parametrize(
    "keys, cluster, key",
    [
        (("learner.ranks=4",), "8xH100", "learner.gradient_checkpointing"),
        (("learner.ranks=1", "learner.gradient_checkpointing=true"), "8xH100", "learner.offload_optimizer"),
        (
            ("learner.ranks=8", "learner.offload_optimizer=true", "learner.gradient_checkpointing=true"),
            "16xT4",
            "rollout.gpus",
        ),
    ],
)
def test_the_first_remedy_that_fits_is_cheap_and_really_fits(run_of, keys, cluster, key):
    found = plan(run_of(QWEN3_8B, *GPUS, *keys), QWEN3_8B, cluster)
    assert not found.fits
    remedy = find_remedy(found)
    assert remedy is not None and key in remedy.changes and len(remedy.changes) <= 3
    again = plan(with_keys(found.run, remedy.changes), QWEN3_8B, cluster)
    assert again.fits == remedy.fits
    assert not {problem.where for problem in again.problems} - {"GPUs"}


def test_a_remedy_that_wants_more_gpus_says_how_many(run_of):
    keys = ("learner.gradient_checkpointing=true", "learner.optimizer=muon")
    found = plan(run_of(QWEN3_8B, *GPUS, *keys), QWEN3_8B, "2xH100")
    remedy = find_remedy(found)  # Muon takes no offload, so only more ranks help
    assert remedy is not None and not remedy.fits
    assert (remedy.changes, remedy.gpus) == ({"learner.ranks": 2}, 3)


def test_too_small_shared_memory_is_cured_by_nccl(run_of):
    run = run_of(
        QWEN3_8B, *GPUS, "weights.backend=object_store", "learner.ranks=4", "learner.gradient_checkpointing=true"
    )
    found = plan(run, QWEN3_8B, "8xH100", host_gib=2000, shm_gib=16)
    assert [problem.where for problem in found.problems] == ["shared memory"]
    remedy = find_remedy(found)
    assert remedy is not None and str(remedy) == "weights.backend=nccl"


def test_a_671b_mixture_is_planned_in_a_second(run_of):
    import time

    settings = json.loads((DEEPSEEK_V3 / "config.json").read_text())
    keys = ("learner.ranks=64", "rollout.gpus=16", "prompts_per_step=64", "learner.gradient_checkpointing=true")
    run = run_of(settings, *GPUS, *keys)
    started = time.process_time()
    found = plan(run, settings, "12x8xH100")
    assert {problem.where for problem in found.problems} == {"rank", "engine"}
    find_remedy(found)
    assert time.process_time() - started < 20
