"""The scalar and its gradient, composed of an algorithm and what is added to it, worked by hand."""

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
    """Two tokens of weight 1/2, log-probability -1 when they were drawn, advantages 1 and -1."""
    return replace(make_batch([-1.0, -1.0], [1.0, -1.0], loss_weights=[0.5, 0.5]), **changes)


def loss_and_gradients(objective: Objective, inputs: TrainBatch) -> tuple[float, list[float], list[float]]:
    """On the policy that drew: the loss, its gradient in the log-probabilities and in the entropies."""
    logprobs = torch.tensor([-1.0, -1.0], requires_grad=True)
    entropies = torch.tensor(ENTROPIES, requires_grad=True)
    loss = objective.loss(logprobs, entropies, inputs)
    loss.backward()
    assert logprobs.grad is not None
    return loss.item(), logprobs.grad.tolist(), [0.0, 0.0] if entropies.grad is None else entropies.grad.tolist()


def test_an_algorithm_alone_is_its_weighted_sum():
    loss, gradient, of_entropies = loss_and_gradients(Objective(algorithm=ALGORITHM), batch())
    assert (loss, gradient, of_entropies) == (0.0, [-0.5, 0.5], [0.0, 0.0])


def test_an_entropy_bonus_takes_off_its_share_of_the_mean_entropy():
    loss, gradient, of_entropies = loss_and_gradients(Objective(algorithm=ALGORITHM, entropy_bonus=0.01), batch())
    assert loss == pytest.approx(-0.01 * 2.5)
    assert gradient == [-0.5, 0.5]
    assert of_entropies == pytest.approx([-0.005, -0.005])


def test_a_kl_in_the_loss_adds_k3_of_each_token_and_pulls_towards_the_reference():
    # The reference gives the first token half the probability: r = 1/2, k3 = 1/2 - 1 + log 2 and its slope 1 - r.
    ref = torch.tensor([-1.0 + math.log(0.5), -1.0])
    loss, gradient, _ = loss_and_gradients(Objective(algorithm=ALGORITHM, kl=R1), batch(ref_logprobs=ref))
    assert loss == pytest.approx(0.5 * 0.1 * (math.log(2) - 0.5))
    assert gradient == pytest.approx([-0.5 + 0.5 * 0.1 * 0.5, 0.5])


def test_a_correction_weighs_the_algorithm_s_loss_but_not_the_kl():
    # The engine gave the first token half of what the learner gives it, so it counts twice; the second counts once.
    engine, ref = torch.tensor([-1.0 + math.log(0.5), -1.0]), torch.tensor([-1.0 + math.log(0.5), -1.0])
    objective = Objective(algorithm=ALGORITHM, kl=R1, correction=TruncatedImportanceSampling(name="tis", cap=3.0))
    loss, gradient, _ = loss_and_gradients(objective, batch(rollout_logprobs=engine, ref_logprobs=ref))
    assert loss == pytest.approx(0.5 * (-2.0 + 1.0) + 0.5 * 0.1 * (math.log(2) - 0.5))
    assert gradient == pytest.approx([-1.0 + 0.025, 0.5])


def test_a_token_that_a_correction_drops_pushes_nowhere():
    engine = torch.tensor([-1.0 + math.log(0.1), -1.0])
    objective = Objective(algorithm=ALGORITHM, correction=IcePop(name="icepop", low=0.5, high=5.0))
    assert loss_and_gradients(objective, batch(rollout_logprobs=engine))[1] == [0.0, 0.5]
    measured = objective.measure(torch.tensor([-1.0, -1.0]), torch.tensor(ENTROPIES), batch(rollout_logprobs=engine))
    assert (measured["weight"], measured["dropped"]) == (1.0, 1.0)


def test_completions_of_advantage_0_are_needed_where_the_loss_has_more_than_the_advantage():
    in_reward = R1.model_copy(update={"place": "reward"})
    assert Objective(algorithm=ALGORITHM).skips_zero_advantage
    assert Objective(algorithm=ALGORITHM, kl=in_reward).skips_zero_advantage
    assert not Objective(algorithm=ALGORITHM, kl=R1).skips_zero_advantage
    assert not Objective(algorithm=ALGORITHM, entropy_bonus=0.01).skips_zero_advantage


def test_how_far_the_policy_has_moved_is_measured_against_the_engine_over_the_tokens_that_count():
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
            "stopped": 1,  # the likelier of two good tokens is beyond the clip
        }
    )


def test_an_algorithm_without_a_clip_stops_no_token():
    measured = Objective(algorithm=RLOO(name="rloo")).measure(torch.zeros(2), torch.tensor(ENTROPIES), batch())
    assert measured["stopped"] == 0


def test_measuring_a_batch_in_which_no_token_counts_finds_nothing():
    measured = Objective(algorithm=ALGORITHM).measure(
        torch.zeros(2), torch.zeros(2), batch(loss_weights=torch.zeros(2))
    )
    assert {name: value for name, value in measured.items() if name != "packed_tokens"} == dict.fromkeys(
        ["tokens", "k3", "abs", "ratio", "ratio_max", "entropy", "stopped"], 0.0
    )


def test_sums_of_batches_add_up_and_of_maxima_the_largest_stays():
    assert combine([{"k3": 1.0, "ratio_max": 1.5}, {"k3": 2.0, "ratio_max": 1.2, "loss": 1.0}]) == {
        "k3": 3.0,
        "ratio_max": 1.5,
        "loss": 1.0,
    }
