"""The three estimators of the KL, and their gradients as penalties."""

import math
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError

from rlframe.objective.kl import KL, estimate, is_due, token_loss
from rlframe.training import TrainBatch
from tests.tiny.batches import make_batch

HALF, FIFTH = math.log(0.5), math.log(0.2)


def token_estimate(estimator, logprob: float, ref_logprob: float) -> float:
    return estimate(estimator, torch.tensor([logprob]), torch.tensor([ref_logprob])).item()


def test_estimates_for_a_policy_of_one_half_and_a_reference_of_a_fifth():
    # log r = log 0.4 = -0.91629
    assert token_estimate("k1", HALF, FIFTH) == pytest.approx(0.91629, abs=1e-5)
    assert token_estimate("k2", HALF, FIFTH) == pytest.approx(0.41979, abs=1e-5)
    assert token_estimate("k3", HALF, FIFTH) == pytest.approx(0.4 - 1 + 0.91629, abs=1e-5)


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_equal_probabilities_have_penalty_0(estimator):
    assert token_estimate(estimator, HALF, HALF) == 0.0


def test_the_mean_of_k1_and_of_k3_over_sampled_tokens_is_the_kl():
    policy, reference = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.5, 0.3])
    exact = (policy * (policy / reference).log()).sum()
    for estimator in ("k1", "k3"):
        assert (policy * estimate(estimator, policy.log(), reference.log())).sum().item() == pytest.approx(exact.item())


def sampled_by(old_logprobs: torch.Tensor) -> TrainBatch:
    return replace(make_batch([0.0] * len(old_logprobs), [1.0] * len(old_logprobs)), old_logprobs=old_logprobs)


def gradient(estimator, old: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients in the logits: of a KL's mean loss over tokens that `old` sampled (None: the policy), and of the KL.

    The mean is exact, over all tokens of a vocabulary of three; sampling has no gradient.
    """
    logits = torch.tensor([0.3, -0.2, 0.8], dtype=torch.float64)
    reference = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64).log()

    def slope(function) -> torch.Tensor:
        leaf = logits.clone().requires_grad_()
        function(leaf.log_softmax(0)).backward()
        assert leaf.grad is not None
        return leaf.grad

    old_logprobs = logits.log_softmax(0) if old is None else old
    batch = sampled_by(old_logprobs)
    return (
        slope(lambda logprobs: (old_logprobs.exp() * token_loss(estimator, logprobs, reference, batch)).sum()),
        slope(lambda logprobs: (logprobs.exp() * (logprobs - reference)).sum()),
    )


def test_on_policy_k2_and_k3_have_the_gradient_of_the_kl_and_k1_has_none():
    for estimator in ("k2", "k3"):
        found, exact = gradient(estimator)
        torch.testing.assert_close(found, exact)
    found, _ = gradient("k1")
    assert found.abs().max().item() < 1e-12


def test_on_tokens_of_an_older_policy_only_k3_has_the_gradient_of_the_kl():
    older = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64).log()
    found, exact = gradient("k3", older)
    torch.testing.assert_close(found, exact)
    found, exact = gradient("k2", older)
    assert torch.cosine_similarity(found, exact, dim=0) < 0.9


def test_the_ratio_weighs_k3_and_leaves_k2_alone():
    # A token of ratio 2 under the current policy; the reference gives it half the probability: k3 = log 2 - 1/2.
    logprobs, ref_logprobs = torch.tensor([HALF]), torch.tensor([2 * HALF])
    older = sampled_by(torch.tensor([2 * HALF]))
    assert token_loss("k3", logprobs, ref_logprobs, older).item() == pytest.approx(2 * (math.log(2) - 0.5))
    assert token_loss("k2", logprobs, ref_logprobs, older).item() == pytest.approx(math.log(2) ** 2 / 2)


def test_k1_in_the_loss_is_refused_with_a_remedy():
    with pytest.raises(ValidationError, match="take k2 or k3, or place=reward"):
        KL(estimator="k1", weight=0.1, place="loss", refresh_every=0, offload=False)
    KL(estimator="k1", weight=0.1, place="reward", refresh_every=0, offload=False)


@pytest.mark.parametrize("estimator", ["k2", "k3"])
def test_only_k1_is_accepted_in_the_reward(estimator):
    with pytest.raises(ValidationError, match=f"{estimator} in the reward does not pull .*; take k1, or place=loss"):
        KL(estimator=estimator, weight=0.1, place="reward", refresh_every=0, offload=False)


def reward_gradient(estimator) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients in the logits: of a KL that is a reward (exact mean over tokens), and of the KL."""
    logits = torch.tensor([0.3, -0.2, 0.8], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64).log()
    logprobs = logits.log_softmax(0)
    penalty = estimate(estimator, logprobs, reference).detach()
    [found] = torch.autograd.grad((logprobs.exp().detach() * penalty * logprobs).sum(), logits, retain_graph=True)
    [exact] = torch.autograd.grad((logprobs.exp() * (logprobs - reference)).sum(), logits)
    return found, exact


def test_in_the_reward_k1_has_the_gradient_of_the_kl_and_k3_has_another():
    torch.testing.assert_close(*reward_gradient("k1"))
    found, exact = reward_gradient("k3")
    assert torch.cosine_similarity(found, exact, dim=0) < 0.5


def test_the_reference_is_refreshed_every_n_versions_or_never():
    every_4 = KL(estimator="k3", weight=0.1, place="loss", refresh_every=4, offload=False)
    assert [version for version in range(1, 10) if is_due(every_4, version)] == [4, 8]
    never = every_4.model_copy(update={"refresh_every": 0})
    assert not any(is_due(never, version) for version in range(1, 10))
