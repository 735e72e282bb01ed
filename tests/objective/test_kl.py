"""The three estimators of the KL, and their gradients as penalties."""

import math

import pytest
import torch
from pydantic import ValidationError

from rlframe.objective.kl import KL, estimate, is_due

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


def gradient(estimator) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients in the logits: of an estimator's mean over sampled tokens (sampling has no gradient), and of the KL."""
    logits = torch.tensor([0.3, -0.2, 0.8], dtype=torch.float64)
    reference = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64).log()

    def slope(function) -> torch.Tensor:
        leaf = logits.clone().requires_grad_()
        function(leaf.log_softmax(0)).backward()
        assert leaf.grad is not None
        return leaf.grad

    probabilities = logits.softmax(0)
    return (
        slope(lambda logprobs: (probabilities * estimate(estimator, logprobs, reference)).sum()),
        slope(lambda logprobs: (logprobs.exp() * (logprobs - reference)).sum()),
    )


def test_in_the_loss_k2_has_the_gradient_of_the_kl_and_k1_has_none():
    got, exact = gradient("k2")
    torch.testing.assert_close(got, exact)
    got, _ = gradient("k1")
    assert got.abs().max().item() < 1e-12


def test_k1_in_the_loss_is_refused_with_a_remedy():
    with pytest.raises(ValidationError, match="take k2 or k3, or place=reward"):
        KL(estimator="k1", weight=0.1, place="loss", refresh_every=0, offload=False)
    KL(estimator="k1", weight=0.1, place="reward", refresh_every=0, offload=False)


def test_the_reference_is_refreshed_every_n_versions_or_never():
    every_4 = KL(estimator="k3", weight=0.1, place="loss", refresh_every=4, offload=False)
    assert [version for version in range(1, 10) if is_due(every_4, version)] == [4, 8]
    never = every_4.model_copy(update={"refresh_every": 0})
    assert not any(is_due(never, version) for version in range(1, 10))
