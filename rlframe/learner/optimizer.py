"""Builds the optimizer that `learner.optimizer` names, over the trained parameters."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from rlframe.learner.partition import whole_shape

if TYPE_CHECKING:
    from rlframe.learner.config import LearnerConfig
    from rlframe.model.policy import Policy

MUON_MOMENTUM = 0.95


def build(policy: Policy, config: LearnerConfig) -> torch.optim.Optimizer:
    """The optimizer that DeepSpeed partitions. A parameter group's rate is the run's times its `lr_scale`."""
    match config.optimizer:
        case "adamw":
            return torch.optim.AdamW(
                [{"lr_scale": 1.0, **group} for group in _by_decay(_trained(policy), config.weight_decay)],
                lr=config.lr,
                betas=(config.betas[0], config.betas[1]),
                eps=config.adam_epsilon,
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
        shape = whole_shape(parameter)
        parameter.use_muon = len(shape) == 2 and parameter.is_matrix and id(parameter) not in embeddings_and_head
        if parameter.use_muon:
            by_shape.setdefault((shape[0], shape[1]), []).append(parameter)
        else:
            adam_parameters.append(parameter)
    muon = {"use_muon": True, "momentum": MUON_MOMENTUM, "lr": config.lr, "weight_decay": config.weight_decay}
    adam = {
        "use_muon": False,
        "betas": tuple(config.betas),
        "eps": config.adam_epsilon,
        "lr": config.lr,
        "lr_scale": 1.0,
    }
    return [
        *({"params": parameters, "lr_scale": rms_scale(*shape), **muon} for shape, parameters in by_shape.items()),
        *({**adam, **group} for group in _by_decay(adam_parameters, config.weight_decay)),
    ]


def _by_decay(parameters: list[Any], weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups with and without weight decay: matrices decay; scales, biases and decay rates do not."""
    matrices = [parameter for parameter in parameters if parameter.is_matrix]
    vectors = [parameter for parameter in parameters if not parameter.is_matrix]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def _trained(policy: Policy) -> list[Any]:
    """The parameters to train, as Any: they get attributes that torch does not know.

    `is_matrix`: False for vectors, also where they are stacked, as the biases of experts [E, 2 I] and the decay rates
    of state-space channels [channels, states].
    """
    parameters: list[Any] = []
    for name, parameter in policy.named_parameters():
        if parameter.requires_grad:
            parameters.append(parameter)
            parameters[-1].is_matrix = len(whole_shape(parameter)) >= 2 and not name.endswith(("bias", "A_log"))
    return parameters
