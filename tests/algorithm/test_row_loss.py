"""Losses of comparisons and labels: numbers worked by hand, and the slope of each token's value."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from rlframe.algorithm import DPO, IPO, BradleyTerry, DPONorm, Pointwise, RowLoss, rate
from rlframe.batch.samples import to_samples
from rlframe.training import GroupRecord
from tests.tiny.groups import make_record

# The chosen answer's two tokens have log-probabilities of sum -10, 2 above the reference; the rejected one's four
# tokens have the sum -20, 2 below the reference.
LOGPROBS = [np.array([-4.0, -6.0], np.float32), np.array([-5.0, -5.0, -5.0, -5.0], np.float32)]
PAIR = replace(make_record([0.0, 0.0], [2, 4]), asked=LOGPROBS, reference=[-12.0, -18.0])


def advantages(algorithm: RowLoss, group: GroupRecord) -> list[list[float]]:
    return [advantage.tolist() for advantage in algorithm.advantages(group)]


def test_dpo_of_a_margin_of_0_4():
    dpo = DPO(name="dpo", beta=0.1, likelihood_weight=0.0)
    figures = {"loss": math.log1p(math.exp(-0.4)), "chosen": -10.0, "rejected": -20.0, "margin": 0.4, "accuracy": 1.0}
    assert dpo.means([PAIR]) == pytest.approx(figures)
    slope = 0.1 / (1 + math.exp(0.4))  # beta sigmoid(-margin)
    assert advantages(dpo, PAIR) == [pytest.approx([slope] * 2), pytest.approx([-slope] * 4)]


def test_the_likelihood_part_raises_the_chosen_answer_alone():
    dpo = DPO(name="dpo", beta=0.1, likelihood_weight=0.5)
    assert dpo.means([PAIR])["loss"] == pytest.approx(math.log1p(math.exp(-0.4)) + 0.5 * 5.0)  # 10 nats over 2 tokens
    slope = 0.1 / (1 + math.exp(0.4))
    assert advantages(dpo, PAIR) == [pytest.approx([slope + 0.25] * 2), pytest.approx([-slope] * 4)]


def test_dpo_norm_compares_means_over_tokens():
    norm = DPONorm(name="dpo_norm", beta=2.0, likelihood_weight=0.0)  # 2 (2 / 2 - (-2) / 4) = 3
    assert norm.means([PAIR])["margin"] == pytest.approx(3.0)
    assert norm.means([PAIR])["loss"] == pytest.approx(math.log1p(math.exp(-3.0)))
    slope = 2.0 / (1 + math.exp(3.0))
    assert advantages(norm, PAIR) == [pytest.approx([slope / 2] * 2), pytest.approx([-slope / 4] * 4)]


def test_ipo_pulls_the_difference_to_1_over_2_beta():
    ipo = IPO(name="ipo", beta=0.1, likelihood_weight=0.0)  # the difference is 1.5, the goal 5
    assert ipo.means([PAIR])["loss"] == pytest.approx(3.5**2)
    assert advantages(ipo, PAIR) == [pytest.approx([3.5] * 2), pytest.approx([-1.75] * 4)]
    reached = replace(PAIR, reference=[-20.0, -20.0])  # 10 / 2 - 0
    assert advantages(ipo, reached) == [pytest.approx([0.0] * 2), pytest.approx([0.0] * 4)]


def scored(chosen: float, rejected: float, margin: float) -> GroupRecord:
    asked = [np.array([chosen], np.float32), np.array([rejected], np.float32)]
    return replace(make_record([margin, 0.0], [1, 1]), asked=asked)


def test_a_reward_model_separates_scores_by_the_margin():
    plain = BradleyTerry(name="bradley_terry", margin_scale=1.0, centering=0.0)
    row = scored(1.0, 0.5, margin=0.25)
    figures = {"loss": math.log1p(math.exp(-0.25)), "chosen": 1.0, "rejected": 0.5, "margin": 0.5, "accuracy": 1.0}
    assert plain.means([row]) == pytest.approx(figures)
    slope = 1 / (1 + math.exp(0.25))
    assert advantages(plain, row) == [pytest.approx([slope]), pytest.approx([-slope])]
    deaf = BradleyTerry(name="bradley_terry", margin_scale=0.0, centering=0.0)
    assert deaf.means([row])["loss"] == pytest.approx(math.log1p(math.exp(-0.5)))


def test_centering_pulls_both_scores_to_zero():
    centred = BradleyTerry(name="bradley_terry", margin_scale=0.0, centering=0.01)
    row = scored(1.0, 0.5, margin=0.0)
    assert centred.means([row])["loss"] == pytest.approx(math.log1p(math.exp(-0.5)) + 0.01 * 1.5**2)
    slope = 1 / (1 + math.exp(0.5))
    assert advantages(centred, row) == [pytest.approx([slope - 0.03]), pytest.approx([-slope - 0.03])]


def test_equal_scores_count_as_wrong():
    assert BradleyTerry(name="bradley_terry", margin_scale=1.0, centering=0.0).means([scored(0, 0, 0)])["accuracy"] == 0


def test_labels_of_steps_are_means_over_all_steps():
    pointwise = Pointwise(name="pointwise")
    three = replace(make_record([1.0], [3]), asked=[np.array([0.0, math.log(3), 0.0], np.float32)], labels=[1, 0.5, 0])
    one = replace(make_record([1.0], [1], name="q"), asked=[np.array([0.0], np.float32)], labels=[1.0])
    middle = -0.5 * math.log(0.75) - 0.5 * math.log(0.25)  # sigmoid(log 3) = 0.75
    assert pointwise.means([three, one])["loss"] == pytest.approx((3 * math.log(2) + middle) / 4)
    assert advantages(pointwise, three) == [pytest.approx([0.5, -0.25, -0.5])]  # label - sigmoid
    samples = to_samples(rate([three, one], pointwise), pointwise)
    assert [sample.weight for sample in samples] == pytest.approx([0.25, 0.25])


def test_the_loss_is_a_mean_over_rows_of_sums_over_tokens():
    dpo = DPO(name="dpo", beta=0.1, likelihood_weight=0.0)
    samples = to_samples(rate([PAIR, replace(PAIR, prompt_id="q")], dpo), dpo)
    assert [sample.weight for sample in samples] == pytest.approx([0.5] * 4)
