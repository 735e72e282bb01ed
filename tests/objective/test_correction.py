"""Weights and masks for tokens to which engine and learner give different probabilities."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from rlframe.objective.correction import (
    Correction,
    Corrections,
    IcePop,
    OffPolicyMask,
    Proximal,
    SequenceRejection,
    TruncatedImportanceSampling,
    combined,
)
from rlframe.training import TrainBatch
from tests.tiny.batches import make_batch

TIS = TruncatedImportanceSampling(name="tis", cap=2.0)
ICEPOP = IcePop(name="icepop", low=0.5, high=5.0)
SEQUENCE = SequenceRejection(name="sequence", low=0.8, high=1.25)


def batch(ratios: list[float], lengths: list[int] | None = None) -> TrainBatch:
    """`ratios`: the learner's probability before the step over the engine's."""
    inputs = make_batch([0.0] * len(ratios), [1.0] * len(ratios), lengths)
    return replace(inputs, rollout_logprobs=torch.tensor([-math.log(ratio) for ratio in ratios]))


def weights(corrections: list[Correction], ratios: list[float], lengths: list[int] | None = None) -> list[float | None]:
    """The weight of each token; None: dropped."""
    factors = combined(corrections, torch.zeros(len(ratios)), batch(ratios, lengths))
    return [
        weight if kept else None for weight, kept in zip(factors.weights.tolist(), factors.kept.tolist(), strict=True)
    ]


def test_truncated_weights_are_the_ratio_up_to_the_cap():
    assert weights([TIS], [0.25, 1.0, 1.5, 3.0]) == pytest.approx([0.25, 1.0, 1.5, 2.0])


def test_icepop_drops_tokens_with_a_ratio_beyond_the_bounds():
    assert weights([ICEPOP], [0.4, 0.6, 1.0, 4.0, 6.0]) == [
        None,
        pytest.approx(0.6),
        pytest.approx(1.0),
        pytest.approx(4.0),
        None,
    ]


def test_a_geometric_mean_beyond_the_bounds_drops_the_whole_sequence():
    # 2 and 1/2 cancel; 1 and 2 make 1.41; a single 0.7 is too low.
    assert weights([SEQUENCE], [2.0, 0.5, 1.0, 2.0, 0.7], [2, 2, 1]) == [1.0, 1.0, None, None, None]


def test_the_proximal_policy_gives_every_token_weight_1():
    assert weights([Proximal(name="proximal")], [0.1, 3.0]) == [1.0, 1.0]


def test_weights_multiply_and_what_one_correction_drops_is_dropped():
    # The second sequence has the geometric mean 3; the first token of the first is out of IcePop's bounds.
    found = weights([TIS, ICEPOP, SEQUENCE], [0.4, 2.5, 3.0, 3.0], [2, 2])
    assert found == [None, pytest.approx(2.0 * 2.5), None, None]


def test_without_corrections_every_token_counts_as_it_is():
    assert weights([], [0.1, 30.0]) == [1.0, 1.0]


def test_a_bad_sequence_far_from_the_current_policy_is_dropped():
    # Mean log(sampled / now): 0.6, 0.6, 0.4 and 0.6 nats; advantages 1, -1, -1 and -1.
    inputs = make_batch([-1.0] * 7, [1.0, 1.0, -1.0, -1.0, -1.0, -1.0, -1.0], lengths=[2, 2, 2, 1])
    now = torch.tensor([-1.6, -1.6, -1.0, -2.2, -1.4, -1.4, -1.6])
    mask = OffPolicyMask(name="off_policy_mask", max_log_ratio=0.5)
    factors = mask.factors(now, inputs)
    assert factors.kept.tolist() == [True, True, False, False, True, True, False]
    assert factors.weights.tolist() == [1.0] * 7


def test_the_mask_looks_one_way_only():
    # A bad sequence that has become likelier is kept: the policy would sample it again.
    mask = OffPolicyMask(name="off_policy_mask", max_log_ratio=0.5)
    assert mask.factors(torch.tensor([-0.1]), make_batch([-3.0], [-1.0])).kept.tolist() == [True]


class Run(BaseModel):
    model_config = ConfigDict(strict=True)
    correction: Corrections


@pytest.mark.parametrize(
    "value, expected",
    [
        ({}, []),
        ({"tis": {"name": "tis", "cap": 2.0}}, ["tis"]),
        ({"a": {"name": "sequence", "low": 0.99, "high": 1.01}, "b": {"name": "tis", "cap": 2.0}}, ["sequence", "tis"]),
    ],
)
def test_a_config_holds_none_one_or_several_corrections(value, expected):
    run = Run.model_validate({"correction": value})
    assert [correction.name for correction in run.correction.values()] == expected
    assert Run.model_validate(run.model_dump()) == run


def test_an_unknown_correction_is_named():
    with pytest.raises(ValidationError, match=r"correction.b[\s\S]*'tsi' is none of icepop, off_policy_mask, proximal"):
        Run.model_validate({"correction": {"a": {"name": "proximal"}, "b": {"name": "tsi"}}})
