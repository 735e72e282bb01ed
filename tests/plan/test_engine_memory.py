"""Bytes of an engine's worker, and its room for keys and values."""

import json

from rlframe.plan import engine_memory as memory
from rlframe.plan.devices import GPUS
from rlframe.plan.engine_memory import engine_memory
from rlframe.plan.numbers import GIB
from rlframe.rollout import arguments
from tests.plan.conftest import DEEPSEEK_V3, QWEN3_8B, TINY, shapes_of

H100 = GPUS["H100"]
GPU = ("learner.gpus=1", "rollout.gpus=1")


def test_a_worker_has_its_share_of_the_weights(run_of):
    shapes = shapes_of(QWEN3_8B)
    whole = engine_memory(run_of(QWEN3_8B, *GPU), shapes, H100).kept["weights"]
    assert whole == 2 * shapes.parameters
    quarter = engine_memory(run_of(QWEN3_8B, "learner.gpus=1", "rollout.gpus=4"), shapes, H100).kept["weights"]
    assert quarter == whole // 4


def test_the_room_for_keys_and_values_is_the_rest_of_the_share(run_of):
    found = engine_memory(run_of(QWEN3_8B, *GPU), shapes_of(QWEN3_8B), H100)
    assert found.cache == int(0.85 * H100.memory) - found.kept_bytes - found.passing
    # 36 layers x 8 key heads x 128 x keys and values x 2 bytes
    assert found.token_bytes == 36 * 8 * 128 * 2 * 2
    assert found.cached_tokens == found.cache // found.token_bytes
    halved = run_of(QWEN3_8B, *GPU, "rollout.engine_args={kv_cache_dtype: fp8}")
    assert engine_memory(halved, shapes_of(QWEN3_8B), H100).token_bytes == found.token_bytes // 2


def test_workers_share_key_heads_but_each_has_one(run_of):
    shapes = shapes_of(QWEN3_8B)
    sizes = [
        engine_memory(run_of(QWEN3_8B, "learner.gpus=1", f"rollout.gpus={gpus}"), shapes, H100).token_bytes
        for gpus in (1, 8, 16)
    ]
    assert sizes[1] == sizes[2] == sizes[0] // 8


def test_every_worker_keeps_the_whole_latent_of_deepseek(run_of):
    settings = json.loads((DEEPSEEK_V3 / "config.json").read_text())
    run = run_of(settings, "learner.gpus=1", "rollout.gpus=16")
    assert engine_memory(run, shapes_of(settings), H100).token_bytes == 61 * (512 + 64) * 2


def test_a_layer_with_a_window_keeps_no_more_than_the_window(run_of):
    windows = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 64}
    run = run_of(TINY | windows, "prompts.max_tokens=100", "rollout.max_tokens=100")
    found = engine_memory(run, shapes_of(TINY | windows), None)
    assert found.sequence_bytes == 2 * 8 * 64 + 2 * 8 * 200


def test_experts_are_divided_over_all_copies(run_of):
    settings = json.loads((DEEPSEEK_V3 / "config.json").read_text())
    shapes = shapes_of(settings)
    keys = ("learner.gpus=1", "rollout.gpus=16", "rollout.data_parallel=4", "rollout.tensor_parallel=4")
    apart = engine_memory(run_of(settings, *keys), shapes, H100).kept["weights"]
    together = engine_memory(run_of(settings, *keys, "rollout.expert_parallel=true"), shapes, H100).kept["weights"]
    assert apart - together == 2 * (shapes.expert_parameters // 4 - shapes.expert_parameters // 16)


def test_an_engine_on_a_cpu_has_the_cache_that_the_config_names(run_of):
    found = engine_memory(run_of(TINY, "rollout.kv_cache_gib=2"), shapes_of(TINY), None)
    assert found.cache == 2 * GIB and not found.on_gpu


def test_batches_are_those_of_the_engine():
    assert memory.BATCHED_TOKENS == arguments.MIN_BATCHED_TOKENS
    assert memory.SCORED_TOKENS == arguments.SCORED_TOKENS
