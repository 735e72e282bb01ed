"""The loss of a step and its gradient, worked by hand: algorithm, correction, KL and entropy bonus."""

import math
from dataclasses import replace

import pytest
import torch

from rlframe.algorithm import DAPO, RLOO
from rlframe.objective import Objective, combine
from rlframe.objective.correction import IcePop, TruncatedImportanceSampling
from rlframe.objective.kl import KL
from rlframe.types import TrainBatch
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
    # The reference gives the first token half the probability: r = 1/2, k3 = 1/2 - 1 + log 2, its slope is 1 - r.
    ref = torch.tensor([-1.0 + math.log(0.5), -1.0])
    loss, gradient, _ = loss_and_gradients(Objective(algorithm=ALGORITHM, kl=R1), batch(ref_logprobs=ref))
    assert loss == pytest.approx(0.5 * 0.1 * (math.log(2) - 0.5))
    assert gradient == pytest.approx([-0.5 + 0.5 * 0.1 * 0.5, 0.5])


def test_a_correction_weights_the_algorithm_s_loss_but_not_the_kl():
    # The engine gave the first token half the learner's probability: weight 2. The second token has weight 1.
    engine, ref = torch.tensor([-1.0 + math.log(0.5), -1.0]), torch.tensor([-1.0 + math.log(0.5), -1.0])
    objective = Objective(algorithm=ALGORITHM, kl=R1, correction=TruncatedImportanceSampling(name="tis", cap=3.0))
    loss, gradient, _ = loss_and_gradients(objective, batch(rollout_logprobs=engine, ref_logprobs=ref))
    assert loss == pytest.approx(0.5 * (-2.0 + 1.0) + 0.5 * 0.1 * (math.log(2) - 0.5))
    assert gradient == pytest.approx([-1.0 + 0.025, 0.5])


def test_a_token_that_a_correction_drops_has_no_gradient():
    engine = torch.tensor([-1.0 + math.log(0.1), -1.0])
    objective = Objective(algorithm=ALGORITHM, correction=IcePop(name="icepop", low=0.5, high=5.0))
    assert loss_and_gradients(objective, batch(rollout_logprobs=engine))[1] == [0.0, 0.5]
    measured = objective.measure(torch.tensor([-1.0, -1.0]), torch.tensor(ENTROPIES), batch(rollout_logprobs=engine))
    assert (measured["weight"], measured["dropped"]) == (1.0, 1.0)


def test_a_kl_or_an_entropy_bonus_needs_completions_of_advantage_0():
    in_reward = R1.model_copy(update={"place": "reward"})
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
