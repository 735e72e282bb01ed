"""No log-ratio makes a loss, a gradient or a measurement infinite: every algorithm, correction and KL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
import yaml

from rlframe.algorithm import BUILTIN, Algorithm
from rlframe.config.compose import conf_dir
from rlframe.objective.correction import BUILTIN as CORRECTIONS
from rlframe.objective.correction import Correction
from rlframe.objective.kl import KL
from rlframe.objective.objective import Objective
from rlframe.training import TrainBatch
from tests.tiny.batches import make_batch

LONGEST = [0.0, -0.5, -20.0, -88.0, -1e3, -1e4]  # log-probabilities, so log-ratios are up to 1e4 both ways


def algorithm(name: str) -> Algorithm:
    """With the settings of `conf/algorithm/`."""
    settings = yaml.safe_load((conf_dir() / "algorithm" / f"{name}.yaml").read_text())
    return BUILTIN[name].model_validate({**settings, **({"length": 256} if name == "dr_grpo" else {})})


def corrections() -> dict[str, Sequence[Correction]]:
    """Each correction with the settings of `conf/correction/`, and all of them together."""
    files = {name: conf_dir() / "correction" / f"{name}.yaml" for name in CORRECTIONS}
    settings = {name: yaml.safe_load(file.read_text())[name] for name, file in files.items()}
    each = {name: kind.model_validate(settings[name]) for name, kind in CORRECTIONS.items()}
    return {"none": (), "all": list(each.values())} | {name: [correction] for name, correction in each.items()}


KLS = {"no kl": None} | {
    estimator: KL(estimator=estimator, weight=0.1, place="loss", refresh_every=0, offload=False)
    for estimator in ("k2", "k3")
}


def extreme_batch() -> tuple[torch.Tensor, TrainBatch]:
    """Every combination of extreme log-probabilities of the current policy, before the step, engine and reference."""
    values = torch.tensor(LONGEST)
    now, old, rollout, ref = (grid.flatten() for grid in torch.meshgrid(values, values, values, values, indexing="ij"))
    advantages = torch.arange(len(now)) % 2 * 2.0 - 1.0
    batch = make_batch(old.tolist(), advantages.tolist(), lengths=[6] * (len(now) // 6))
    return now, replace(batch, rollout_logprobs=rollout, ref_logprobs=ref)


@pytest.mark.parametrize("kl", KLS)
@pytest.mark.parametrize("correction", corrections())
@pytest.mark.parametrize("name", BUILTIN)
def test_no_log_ratio_spoils_a_loss_or_a_gradient(name: str, correction: str, kl: str) -> None:
    now, batch = extreme_batch()
    objective = Objective(
        algorithm=algorithm(name), corrections=corrections()[correction], kl=KLS[kl], entropy_bonus=0.01
    )
    logprobs = now.requires_grad_()
    entropies = torch.ones_like(now).requires_grad_()
    losses = objective.token_losses(logprobs, entropies, batch)
    assert torch.isfinite(losses).all()
    losses.sum().backward()
    assert logprobs.grad is not None
    assert torch.isfinite(logprobs.grad).all()
    measured = objective.measure(logprobs.detach(), entropies.detach(), batch)
    assert all(torch.isfinite(torch.tensor(value)) for value in measured.values())
