"""What benchmarks measure is really run, and what they divide by is worked out by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.flops import QWEN3_0_6B, SMOLLM2, computed, drawn, ideal, seen

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def test_11900_tokens_a_second_of_16k_sequences_are_the_peer_s_11_percent_of_an_h100():
    tokens = 16_384
    of_token = ideal(QWEN3_0_6B, tokens, seen(0, [tokens])) / tokens
    assert of_token == pytest.approx(6 * 0.596e9 + 6 * 28 * 2048 * tokens, rel=1e-3)
    assert 11_900 * of_token / 989e12 == pytest.approx(0.111, abs=5e-4)


def test_a_prompt_s_pairs_are_counted_once_and_each_completion_s_with_it():
    assert seen(3, [2, 1]) == (1 + 2 + 3) + (4 + 5) + 4


def test_what_is_computed_is_the_ideal_less_the_head_at_prompts_and_the_head_once_more_for_all_but_the_last_chunk():
    head = 1024 * 151_936
    assert computed(QWEN3_0_6B, 100, 400, 60, kept=15) - ideal(QWEN3_0_6B, 100, 400) == (2 * 45 - 6 * 40) * head
    assert computed(QWEN3_0_6B, 100, 400, 60) - ideal(QWEN3_0_6B, 100, 400) == (2 * 60 - 6 * 40) * head


def test_an_engine_takes_prompts_through_its_layers_and_drawn_tokens_through_its_head_too():
    layers, head = 106_168_320, 576 * 49_152  # of SmolLM2-135M
    assert drawn(SMOLLM2, 768, 1600) == 2 * layers * (768 + 1600) + 2 * head * 1600


def test_the_learner_is_measured_without_ray_vllm_or_hydra_and_says_nothing_of_a_gpu_on_a_cpu():
    command = [str(BENCHMARKS / "learner_gpu.py"), "--cpu", "--steps=1", "--warmup=0"]
    code = (
        "import runpy, sys; sys.modules |= dict.fromkeys(('ray', 'vllm', 'hydra', 'omegaconf')); "
        f"sys.argv = {command}; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "no GPU in use" in done.stdout and "peer" not in done.stdout
    device, whole, grouped = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert device == {"device": "cpu", "peak_tflops": None, "head_dtype": "float32", "gradient_checkpointing": False}
    for job in (whole, grouped):
        assert (job["micro_batches"], job["tokens"]) == (4, 1024)
        assert job["tokens_per_s"]["min"] > 0 and "mfu_percent" not in job
