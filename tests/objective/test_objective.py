"""The loss of a step and its gradient, worked by hand: algorithm, correction, KL and entropy bonus."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from rlframe.algorithm import DAPO, GMPO, GRPO, GSPO, RLOO
from rlframe.objective.correction import IcePop, SequenceRejection, TruncatedImportanceSampling
from rlframe.objective.kl import KL
from rlframe.objective.objective import Objective, combine
from rlframe.training import TrainBatch
from tests.tiny.batches import make_batch

ALGORITHM = DAPO(name="dapo", clip_low=0.2, clip_high=0.28)
R1 = KL(estimator="k3", weight=0.1, place="loss", refresh_every=400, offload=False)
ENTROPIES = [2.0, 3.0]


def batch(**changes: torch.Tensor) -> TrainBatch:
    """Two tokens of weight 1/2, log-probability -1 when they were sampled, advantages 1 and -1."""
    return replace(make_batch([-1.0, -1.0], [1.0, -1.0], loss_weights=[0.5, 0.5]), **changes)


def loss_and_gradients(objective: Objective, inputs: TrainBatch) -> tuple[float, list[float], list[float]]:
    """On policy: the loss, its gradient in the log-probabilities and its gradient in the entropies."""
    logprobs = torch.tensor([-1.0, -1.0], requires_grad=True)
    entropies = torch.tensor(ENTROPIES, requires_grad=True)
    loss = objective.loss(logprobs, entropies, inputs)
    loss.backward()
    assert logprobs.grad is not None
    return loss.item(), logprobs.grad.tolist(), [0.0, 0.0] if entropies.grad is None else entropies.grad.tolist()


def test_without_additions_the_loss_is_the_weighted_sum_of_token_losses():
    loss, gradient, entropy_gradient = loss_and_gradients(Objective(algorithm=ALGORITHM), batch())
    assert (loss, gradient, entropy_gradient) == (0.0, [-0.5, 0.5], [0.0, 0.0])


def test_an_entropy_bonus_subtracts_a_multiple_of_the_mean_entropy():
    loss, gradient, entropy_gradient = loss_and_gradients(Objective(algorithm=ALGORITHM, entropy_bonus=0.01), batch())
    assert loss == pytest.approx(-0.01 * 2.5)
    assert gradient == [-0.5, 0.5]
    assert entropy_gradient == pytest.approx([-0.005, -0.005])


def test_a_kl_in_the_loss_pulls_towards_the_reference():
    # The reference gives the first token half the probability: r = 1/2, k3 = 1/2 - 1 + log 2. With the ratio, whose
    # slope is 1, the slope of k3 is k3 + 1 - r = log 2.
    ref = torch.tensor([-1.0 + math.log(0.5), -1.0])
    loss, gradient, _ = loss_and_gradients(Objective(algorithm=ALGORITHM, kl=R1), batch(ref_logprobs=ref))
    assert loss == pytest.approx(0.5 * 0.1 * (math.log(2) - 0.5))
    assert gradient == pytest.approx([-0.5 + 0.5 * 0.1 * math.log(2), 0.5])


def test_a_correction_weights_the_algorithm_s_loss_but_not_the_kl():
    # The engine gave the first token half the learner's probability: weight 2. The second token has weight 1.
    engine, ref = torch.tensor([-1.0 + math.log(0.5), -1.0]), torch.tensor([-1.0 + math.log(0.5), -1.0])
    objective = Objective(algorithm=ALGORITHM, kl=R1, corrections=[TruncatedImportanceSampling(name="tis", cap=3.0)])
    loss, gradient, _ = loss_and_gradients(objective, batch(rollout_logprobs=engine, ref_logprobs=ref))
    assert loss == pytest.approx(0.5 * (-2.0 + 1.0) + 0.5 * 0.1 * (math.log(2) - 0.5))
    assert gradient == pytest.approx([-1.0 + 0.05 * math.log(2), 0.5])


def test_a_token_that_a_correction_drops_has_no_gradient():
    engine = torch.tensor([-1.0 + math.log(0.1), -1.0])
    objective = Objective(algorithm=ALGORITHM, corrections=[IcePop(name="icepop", low=0.5, high=5.0)])
    assert loss_and_gradients(objective, batch(rollout_logprobs=engine))[1] == [0.0, 0.5]
    measured = objective.measure(torch.tensor([-1.0, -1.0]), torch.tensor(ENTROPIES), batch(rollout_logprobs=engine))
    assert (measured["weight"], measured["dropped"]) == (1.0, 1.0)


def test_a_token_of_an_impossible_ratio_is_dropped_not_multiplied_by_0():
    # The engine all but ruled out the first token: e^200 is infinite in float32, and infinity times 0 is NaN.
    engine = torch.tensor([-200.0, -1.0])
    objective = Objective(algorithm=ALGORITHM, corrections=[IcePop(name="icepop", low=0.5, high=5.0)])
    loss, gradient, _ = loss_and_gradients(objective, batch(rollout_logprobs=engine))
    assert (loss, gradient) == (0.5, [0.0, 0.5])


@pytest.mark.parametrize("algorithm", [GSPO(name="gspo", clip_low=9.0, clip_high=9.0), GMPO(name="gmpo", clip=9.0)])
def test_a_dropped_token_leaves_the_mean_over_its_sequence(algorithm):
    # Ratios 4 and 9 since the step began; IcePop drops the second token. Without it the geometric mean is 4, not 6.
    inputs = make_batch([-3.0, -3.0], [1.0, 1.0], loss_weights=[0.5, 0.5])
    inputs = replace(inputs, rollout_logprobs=torch.tensor([-3.0, -3.0 - math.log(10)]))
    logprobs = torch.tensor([-3.0 + math.log(4), -3.0 + math.log(9)], requires_grad=True)
    objective = Objective(algorithm=algorithm, corrections=[IcePop(name="icepop", low=0.5, high=5.0)])
    loss = objective.loss(logprobs, torch.zeros(2), inputs)
    loss.backward()
    assert loss.item() == pytest.approx(-0.5 * 4)
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == pytest.approx([-0.5 * 4, 0.0])
    measured = objective.measure(logprobs.detach(), torch.zeros(2), inputs)
    assert (measured["weight"], measured["dropped"], measured["stopped"]) == (1.0, 1.0, 0.0)


def test_several_corrections_weigh_and_drop_together():
    # The first sequence is twice as likely to the learner: beyond `sequence`. The second has the weight 1.005.
    engine = torch.tensor([-1.0 - math.log(2), -1.0 - math.log(1.005)])
    inputs = make_batch([-1.0, -1.0], [1.0, -1.0], lengths=[1, 1], loss_weights=[0.5, 0.5])
    sequence = SequenceRejection(name="sequence", low=0.99, high=1.01)
    objective = Objective(algorithm=ALGORITHM, corrections=[sequence, TruncatedImportanceSampling(name="tis", cap=2.0)])
    _, gradient, _ = loss_and_gradients(objective, replace(inputs, rollout_logprobs=engine))
    assert gradient == pytest.approx([0.0, 0.5 * 1.005])
    measured = objective.measure(
        torch.tensor([-1.0, -1.0]), torch.tensor(ENTROPIES), replace(inputs, rollout_logprobs=engine)
    )
    assert (measured["weight"], measured["dropped"]) == (pytest.approx(1.005), 1.0)


def test_kl_and_entropy_bonus_are_means_where_the_loss_is_a_sum():
    # RLOO weighs every token 1 / N = 1; KL and entropy are means over the two tokens all the same.
    inputs = make_batch([-1.0, -1.0], [1.0, -1.0], loss_weights=[1.0, 1.0])
    inputs = replace(inputs, ref_logprobs=torch.tensor([-1.0 + math.log(0.5), -1.0]))
    objective = Objective(algorithm=RLOO(name="rloo"), kl=R1, entropy_bonus=0.01)
    loss, gradient, entropy_gradient = loss_and_gradients(objective, inputs)
    assert loss == pytest.approx((1.0 - 1.0) + 0.1 * (math.log(2) - 0.5) / 2 - 0.01 * 2.5, abs=1e-6)
    assert gradient == pytest.approx([-1.0 + 0.1 * math.log(2) / 2, 1.0])
    assert entropy_gradient == pytest.approx([-0.005, -0.005])


def test_grpo_with_a_kl_equals_the_formula_in_float64():
    """DeepSeek-V3.2's loss: mean over completions of token means of -min(r A, clip(r) A) + weight r k3."""
    rng = np.random.default_rng(1)
    lengths = [3, 1, 6]
    old = -rng.exponential(1.0, sum(lengths))
    now, ref = old + 0.3 * rng.normal(size=len(old)), old + 0.5 * rng.normal(size=len(old))
    advantages = np.repeat(rng.normal(size=3), lengths)
    ratio, r = np.exp(now - old), np.exp(ref - now)
    clipped = np.minimum(ratio * advantages, np.clip(ratio, 0.8, 1.2) * advantages)
    losses = -clipped + 0.1 * ratio * (r - 1 - np.log(r))
    expected = np.mean([part.mean() for part in np.split(losses, np.cumsum(lengths)[:-1])])

    algorithm = GRPO(name="grpo", clip=0.2)
    weights = algorithm.token_weights(torch.tensor(lengths).float(), torch.zeros(3, dtype=torch.int64))
    token_weights = weights.repeat_interleave(torch.tensor(lengths)).tolist()
    inputs = make_batch(old.tolist(), advantages.tolist(), lengths, token_weights)
    inputs = replace(inputs, ref_logprobs=torch.tensor(ref))
    loss = Objective(algorithm=algorithm, kl=R1).loss(torch.tensor(now), torch.zeros(len(old)), inputs)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_a_kl_or_an_entropy_bonus_needs_completions_of_advantage_0():
    in_reward = R1.model_copy(update={"place": "reward", "estimator": "k1"})
    assert Objective(algorithm=ALGORITHM).skips_zero_advantage
    assert Objective(algorithm=ALGORITHM, kl=in_reward).skips_zero_advantage
    assert not Objective(algorithm=ALGORITHM, kl=R1).skips_zero_advantage
    assert not Objective(algorithm=ALGORITHM, entropy_bonus=0.01).skips_zero_advantage


def test_measure_compares_counted_tokens_with_the_engine():
    inputs = make_batch([0.0, -1.0, -1.0], [0.0, 1.0, 1.0], loss_weights=[0.0, 0.5, 0.5])
    logprobs = torch.tensor([0.0, -1.0 + math.log(1.5), -1.0 + math.log(0.5)])
    measured = Objective(algorithm=ALGORITHM).measure(logprobs, torch.tensor([0.0, 2.0, 3.0]), inputs)
    assert measured == pytest.approx(
        {
            "tokens": 2,
            "packed_tokens": 3,
            "ratio": 2.0,
            "ratio_max": 1.5,
            "k3": (1.5 - 1 - math.log(1.5)) + (0.5 - 1 - math.log(0.5)),
            "abs": math.log(1.5) + math.log(2),
            "entropy": 5.0,
            "stopped": 1,  # the first counted token has a positive advantage and a ratio beyond the clip
        }
    )


def test_an_algorithm_without_a_clip_stops_no_token():
    measured = Objective(algorithm=RLOO(name="rloo")).measure(torch.zeros(2), torch.tensor(ENTROPIES), batch())
    assert measured["stopped"] == 0


def test_a_batch_without_counted_tokens_measures_0():
    measured = Objective(algorithm=ALGORITHM).measure(
        torch.zeros(2), torch.zeros(2), batch(loss_weights=torch.zeros(2))
    )
    assert {name: value for name, value in measured.items() if name != "packed_tokens"} == dict.fromkeys(
        ["tokens", "k3", "abs", "ratio", "ratio_max", "entropy", "stopped"], 0.0
    )


def test_combine_adds_sums_and_keeps_the_largest_maximum():
    assert combine([{"k3": 1.0, "ratio_max": 1.5}, {"k3": 2.0, "ratio_max": 1.2, "loss": 1.0}]) == {
        "k3": 3.0,
        "ratio_max": 1.5,
        "loss": 1.0,
    }


def test_combine_shows_a_maximum_that_is_not_a_number():
    for order in ([1.5, math.nan], [math.nan, 1.5]):
        assert math.isnan(combine([{"ratio_max": value} for value in order])["ratio_max"])
