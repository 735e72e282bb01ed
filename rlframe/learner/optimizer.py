"""Builds the optimizer that `learner.optimizer` names, over the trained parameters."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from rlframe.learner.config import LearnerConfig
    from rlframe.model.policy import Policy

MUON_MOMENTUM = 0.95
ADAM_EPS = 1e-8


def build(policy: Policy, config: LearnerConfig) -> torch.optim.Optimizer:
    """The optimizer that DeepSpeed partitions. A parameter group's rate is the run's times its `lr_scale`."""
    match config.optimizer:
        case "adamw":
            return torch.optim.AdamW(
                [{"params": _trained(policy), "lr_scale": 1.0}],
                lr=config.lr,
                betas=(config.betas[0], config.betas[1]),
                eps=ADAM_EPS,
                weight_decay=config.weight_decay,
                fused=True,
            )
        case "muon":
            # Imported here because importing Muon compiles its kernels.
            from deepspeed.runtime.zero.muon.muon_optimizer import MuonWithAuxAdam

            return MuonWithAuxAdam(_muon_groups(policy, config))


def set_rate(optimizer: Any, rate: float) -> None:
    """Sets the learning rate of torch's optimizer, or of DeepSpeed's wrapper."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]


def rms_scale(rows: int, columns: int) -> float:
    """Scales a Muon update of [rows, columns] to the entry size of AdamW's updates, so that one rate serves both.

    An orthogonal matrix's entries have the root mean square 1 / sqrt(max(rows, columns)), AdamW's updates about 0.2
    (Liu et al., 2025, arXiv:2502.16982, eq. 4). DeepSpeed's Muon multiplies by sqrt(max(1, rows / columns)) already.
    """
    return 0.2 * math.sqrt(max(rows, columns)) / math.sqrt(max(1.0, rows / columns))


def _muon_groups(policy: Policy, config: LearnerConfig) -> list[dict[str, Any]]:
    """Hidden matrices by shape for Muon (Jordan et al., 2024); embeddings, head, norms and fused experts for Adam."""
    model: Any = policy.model
    embeddings_and_head = {id(model.get_input_embeddings().weight), id(policy.head.weight)}
    by_shape: dict[tuple[int, int], list[Any]] = {}
    adam_parameters = []
    for parameter in _trained(policy):
        parameter.use_muon = parameter.ndim == 2 and id(parameter) not in embeddings_and_head
        if parameter.use_muon:
            by_shape.setdefault((parameter.shape[0], parameter.shape[1]), []).append(parameter)
        else:
            adam_parameters.append(parameter)
    common = {"lr": config.lr, "weight_decay": config.weight_decay}
    groups: list[dict[str, Any]] = [
        {"params": parameters, "use_muon": True, "momentum": MUON_MOMENTUM, "lr_scale": rms_scale(*shape), **common}
        for shape, parameters in by_shape.items()
    ]
    adam = {"betas": tuple(config.betas), "eps": ADAM_EPS, "lr_scale": 1.0}
    return [*groups, {"params": adam_parameters, "use_muon": False, **adam, **common}]


def _trained(policy: Policy) -> list[Any]:
    """The parameters to train, as Any: DeepSpeed's Muon reads an attribute that torch does not know."""
    return [parameter for parameter in policy.parameters() if parameter.requires_grad]
