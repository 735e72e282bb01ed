"""A peer's side of a comparison: reads the tensors and the cases, writes what the peer computes for each case.

    python peer_trl_losses.py inputs.npz outputs.npz '{"grpo": {"loss_type": "grpo"}, ...}'

Runs in the peer's environment, so it imports no rlframe.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

Tensors = dict[str, torch.Tensor]


def answer(compute: Callable[[dict[str, Any], Tensors], tuple[torch.Tensor, torch.Tensor]]) -> None:
    """Writes advantages, loss, and gradients in log-probabilities and entropies for each case.

    `compute`: a case's settings and the tensors -> advantages [B, T], which are 0 at tokens without a loss, and the
    loss. Everything is float64.
    """
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    arrays = np.load(sys.argv[1])
    outputs: dict[str, np.ndarray] = {}
    for name, settings in json.loads(sys.argv[3]).items():
        tensors = {key: torch.tensor(arrays[key]) for key in arrays}
        if settings.pop("on_policy", False):
            tensors["logprobs"] = tensors["old"].clone()
        leaves = [tensors[key].requires_grad_() for key in ("logprobs", "entropies")]
        advantages, loss = compute(settings, tensors)
        gradients = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
        outputs[f"{name}/advantages"] = advantages.detach().numpy()
        outputs[f"{name}/loss"] = loss.detach().numpy()
        outputs[f"{name}/gradient"] = torch.stack(gradients).numpy()
    np.savez(sys.argv[2], **outputs)
