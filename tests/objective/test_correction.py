"""Weights of tokens to which engine and learner give different probabilities."""

import math

import pytest
import torch

from rlframe.objective.correction import IcePop, Proximal, SequenceRejection, TruncatedImportanceSampling
from tests.tiny.batches import make_batch


def weights(correction, ratios: list[float], lengths: list[int] | None = None) -> list[float]:
    """`ratios`: the learner's probability over the engine's."""
    log_ratio = torch.tensor([math.log(ratio) for ratio in ratios])
    return correction.weights(log_ratio, make_batch([0.0] * len(ratios), [1.0] * len(ratios), lengths)).tolist()


def test_truncated_weights_are_the_ratio_up_to_the_cap():
    tis = TruncatedImportanceSampling(name="tis", cap=2.0)
    assert weights(tis, [0.25, 1.0, 1.5, 3.0]) == pytest.approx([0.25, 1.0, 1.5, 2.0])


def test_icepop_drops_tokens_with_a_ratio_beyond_the_bounds():
    icepop = IcePop(name="icepop", low=0.5, high=5.0)
    assert weights(icepop, [0.4, 0.6, 1.0, 4.0, 6.0]) == pytest.approx([0.0, 0.6, 1.0, 4.0, 0.0])


def test_a_geometric_mean_beyond_the_bounds_drops_the_whole_sequence():
    rejection = SequenceRejection(name="sequence", low=0.8, high=1.25)
    # 2 and 1/2 cancel; 1 and 2 make 1.41; a single 0.7 is too low.
    assert weights(rejection, [2.0, 0.5, 1.0, 2.0, 0.7], [2, 2, 1]) == [1.0, 1.0, 0.0, 0.0, 0.0]


def test_the_proximal_policy_gives_every_token_weight_1():
    assert weights(Proximal(name="proximal"), [0.1, 3.0]) == [1.0, 1.0]
