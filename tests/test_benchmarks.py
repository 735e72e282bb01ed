"""Operation counts equal counts by hand, and cases beside peers' losses have an effect."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.flops import QWEN3_0_6B, SMOLLM2, computed, drawn, ideal, seen

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def test_11900_tokens_a_second_are_11_percent_of_an_h100():
    tokens = 16_384
    operations_per_token = ideal(QWEN3_0_6B, tokens, seen(0, [tokens])) / tokens
    assert operations_per_token == pytest.approx(6 * 0.596e9 + 6 * 28 * 2048 * tokens, rel=1e-3)
    assert 11_900 * operations_per_token / 989e12 == pytest.approx(0.111, abs=5e-4)


def test_attention_pairs_of_a_prompt_are_counted_once():
    assert seen(3, [2, 1]) == (1 + 2 + 3) + (4 + 5) + 4


def test_computed_operations_leave_the_head_out_at_prompts():
    head = 1024 * 151_936
    assert computed(QWEN3_0_6B, 100, 400, 60, kept=15) - ideal(QWEN3_0_6B, 100, 400) == (2 * 45 - 6 * 40) * head
    assert computed(QWEN3_0_6B, 100, 400, 60) - ideal(QWEN3_0_6B, 100, 400) == (2 * 60 - 6 * 40) * head


def test_an_engine_computes_the_head_for_sampled_tokens_only():
    layers, head = 106_168_320, 576 * 49_152  # of SmolLM2-135M
    assert drawn(SMOLLM2, 768, 1600) == 2 * layers * (768 + 1600) + 2 * head * 1600


def test_every_case_beside_a_peers_loss_has_an_effect(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    from peer_losses import PEERS, random_tensors, rlframe_values

    tensors = random_tensors()
    for *_, cases in PEERS.values():
        distinct = {repr((case.objective, case.truncated, case.on_policy)): case for case in cases.values()}
        losses = {float(rlframe_values(case, tensors)["loss"]) for case in distinct.values()}
        assert len(losses) == len(distinct)
