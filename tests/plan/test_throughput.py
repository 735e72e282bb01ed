"""Seconds by stated speeds, for figures that can be worked out by hand."""

import pytest

from rlframe.plan.devices import GPUS
from rlframe.plan.machines import parse_cluster
from rlframe.plan.plan import make_plan
from tests.plan.conftest import QWEN3_8B, shapes_of

KEYS = (
    "learner.gpus=1", "rollout.gpus=1", "prompts_per_step=32", "rollout.group_size=8", "rollout.max_tokens=2048",
    "prompts.max_tokens=1024", "learner.micro_batch_tokens=8192", "learner.gradient_checkpointing=false",
    "plan.completion_tokens=1024",
)  # fmt: skip
H100 = GPUS["H100"]


def times(run_of, *keys, cluster="8xH100"):
    found = make_plan(run_of(QWEN3_8B, *KEYS, *keys), shapes_of(QWEN3_8B), parse_cluster(cluster))
    assert found.times is not None
    return found.times


def test_a_learner_step_is_six_operations_a_parameter_and_token(run_of):
    found = times(run_of, "plan.learner_share=0.5")
    tokens = 32 * 512 + 256 * 1024
    assert found.tokens == tokens
    shapes = shapes_of(QWEN3_8B)
    # 36 layers with queries of 4,096 values, over sequences of 1,536 tokens
    flops = tokens * (6 * (shapes.parameters - 151_936 * 4096) + 6 * 36 * 4096 * 1536)
    assert found.learner_s == pytest.approx(flops / (0.5 * H100.bf16_tflops * 1e12), rel=1e-6)
    assert found.learner_bound == "arithmetic"


def test_ranks_divide_the_time_until_their_transfers_bound_it(run_of):
    one, four = times(run_of), times(run_of, "learner.ranks=4")
    assert four.learner_s == pytest.approx(one.learner_s / 4)
    slow = times(run_of, "learner.ranks=4", "plan.network_gbs=0.01", cluster="5x1xH100")
    assert slow.learner_bound == "transfers between ranks" and slow.learner_s > four.learner_s


def test_measured_speeds_take_the_place_of_stated_ones(run_of):
    found = times(run_of, "plan.rank_tokens_per_s=1000", "plan.engine_tokens_per_s=2000", "max_staleness=8")
    assert found.learner_s == pytest.approx(found.tokens / 1000)
    assert found.rollout_s >= 256 * 1024 / 2000


def test_sides_work_by_turns_or_at_the_same_time(run_of):
    turns, ahead = times(run_of), times(run_of, "max_staleness=4")
    assert turns.step_s == pytest.approx(turns.rollout_s + turns.learner_s + turns.sync_s)
    assert ahead.step_s == pytest.approx(max(ahead.rollout_s, ahead.learner_s + ahead.sync_s))
    assert turns.engines_idle > 0 and turns.learner_idle > 0
    assert min(ahead.engines_idle, ahead.learner_idle) == pytest.approx(0)


def test_on_policy_a_step_waits_for_the_longest_completion(run_of):
    short, long = times(run_of), times(run_of, "rollout.max_tokens=8192", "learner.micro_batch_tokens=9300")
    assert short.completion_tokens == long.completion_tokens == 1024
    assert long.rollout_s > 3 * short.rollout_s


def test_gpu_hours_are_those_of_all_gpus_for_all_steps(run_of):
    run = run_of(QWEN3_8B, *KEYS, "steps=360", "learner.ranks=4")
    found = make_plan(run, shapes_of(QWEN3_8B), parse_cluster("8xH100"))
    assert found.times and found.gpu_hours == pytest.approx(found.times.step_s * 360 * 5 / 3600)


def test_without_a_known_gpu_there_are_no_seconds(run_of):
    assert make_plan(run_of(QWEN3_8B, *KEYS), shapes_of(QWEN3_8B), []).times is None


def test_a_cpu_run_has_seconds_by_cores(run_of):
    keys = ("rollout.max_tokens=128", "learner.cpus=4")
    found = make_plan(run_of(QWEN3_8B, *keys), shapes_of(QWEN3_8B), parse_cluster("1xcpu"))
    assert found.times and found.times.learner_s > 0 and found.gpu_hours == 0
