"""Compares rlframe's losses with TRL's: both get the same tensors, and losses and gradients must agree.

    python benchmarks/trl_losses.py

TRL runs in a separate environment (see reference_job.py), where peer_trl_losses.py calls TRL's unmodified
`_compute_loss` with this file's random log-probabilities. Prints a line for each algorithm, and fails where a
difference exceeds 1e-5.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))  # the folder is no package, and this file runs as a script

from reference_job import trl_python

from rlframe.algorithm import BUILTIN, Algorithm
from rlframe.objective import Objective
from rlframe.objective.correction import BUILTIN as CORRECTIONS
from rlframe.objective.kl import KL
from rlframe.training import TrainBatch

HERE = Path(__file__).parent
LENGTHS = [3, 17, 40, 1, 25, 8, 40, 31]
LONGEST, PROMPT = 40, 2
TOLERANCE = 1e-5


def algorithm(name: str, **settings: float) -> Algorithm:
    return BUILTIN[name].model_validate({"name": name, **settings})


GRPO, DAPO = algorithm("grpo", clip=0.2), algorithm("dapo", clip_low=0.2, clip_high=0.28)
K3 = KL(estimator="k3", weight=0.04, place="loss", refresh_every=0, offload=False)
TIS = CORRECTIONS["tis"].model_validate({"name": "tis", "cap": 1.5})
ICEPOP = CORRECTIONS["icepop"].model_validate({"name": "icepop", "low": 0.7, "high": 1.5})
OFF_POLICY_MASK = CORRECTIONS["off_policy_mask"].model_validate({"name": "off_policy_mask", "max_log_ratio": 0.05})
# rlframe's objective, and TRL's attributes for the same loss; `correction`: TRL's computation of importance weights.
CASES: dict[str, tuple[Objective, dict[str, object]]] = {
    "grpo": (Objective(algorithm=GRPO), {"loss_type": "grpo"}),
    "grpo, dual clip": (
        Objective(algorithm=algorithm("grpo", clip=0.2, dual_clip=1.3)),
        {"loss_type": "grpo", "delta": 1.3},
    ),
    "dapo": (Objective(algorithm=DAPO), {"loss_type": "dapo", "epsilon_high": 0.28}),
    "dr_grpo": (Objective(algorithm=algorithm("dr_grpo", clip=0.2, length=LONGEST)), {"loss_type": "dr_grpo"}),
    "gspo": (
        Objective(algorithm=algorithm("gspo", clip_low=0.02, clip_high=0.03)),
        {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon_low": 0.02, "epsilon_high": 0.03},
    ),
    # TRL's epsilon_high is the bound on the ratio; the paper's and rlframe's is the bound minus 1.
    "cispo": (Objective(algorithm=algorithm("cispo", clip_high=0.3)), {"loss_type": "cispo", "epsilon_high": 1.3}),
    "gmpo": (
        Objective(algorithm=algorithm("gmpo", clip=0.1)),
        {"trainer": "gmpo", "loss_type": "grpo", "epsilon_low": 0.1, "epsilon_high": 0.1},
    ),
    "grpo, k3 in the loss": (
        Objective(algorithm=GRPO, kl=K3),
        {"loss_type": "grpo", "beta": 0.04, "use_bias_correction_kl": True},
    ),
    "grpo, off-policy mask": (
        Objective(algorithm=GRPO, corrections=[OFF_POLICY_MASK]),
        {"loss_type": "grpo", "off_policy_mask_threshold": 0.05},
    ),
    "dapo, entropy bonus": (
        Objective(algorithm=DAPO, entropy_bonus=0.01),
        {"loss_type": "dapo", "epsilon_high": 0.28, "entropy_coef": 0.01},
    ),
    "dapo, tis": (
        Objective(algorithm=DAPO, corrections=[TIS]),
        {"loss_type": "dapo", "epsilon_high": 0.28, "correction": {"truncate": 1.5}},
    ),
    "dapo, icepop": (
        Objective(algorithm=DAPO, corrections=[ICEPOP]),
        {"loss_type": "dapo", "epsilon_high": 0.28, "correction": {"mask": [0.7, 1.5]}},
    ),
}


def main() -> None:
    tensors = random_tensors()
    with tempfile.TemporaryDirectory() as folder:
        inputs, outputs = Path(folder) / "inputs.npz", Path(folder) / "outputs.npz"
        np.savez(inputs, **tensors)
        cases = json.dumps({name: settings for name, (_, settings) in CASES.items()})
        command = [str(trl_python()), str(HERE / "peer_trl_losses.py"), str(inputs), str(outputs), cases]
        subprocess.run(command, check=True, stdout=sys.stderr)
        trl = dict(np.load(outputs))
    worst = 0.0
    for name, (objective, _) in CASES.items():
        loss, gradient, stopped = rlframe_loss(objective, tensors)
        loss_gap = abs(loss - trl[f"{name}/loss"].item())
        gradient_gap = np.abs(gradient - trl[f"{name}/gradient"]).max() / np.abs(gradient).max()
        worst = max(worst, loss_gap, gradient_gap)
        print(
            f"{name:22} loss {loss:+.6f}, apart {loss_gap:.1e}; gradient apart {gradient_gap:.1e} of its largest; "
            f"{stopped:.0%} of tokens clipped"
        )
    sys.exit(int(worst > TOLERANCE))


def random_tensors() -> dict[str, np.ndarray]:
    """[B, T] for completions, under policies some steps apart; `mask` marks the tokens of shorter completions."""
    rng = np.random.default_rng(3)
    shape = (len(LENGTHS), LONGEST)
    old = -rng.exponential(1.5, shape)
    arrays = {
        "logprobs": old + 0.2 * rng.normal(size=shape),
        "old": old,
        "rollout": old + 0.3 * rng.normal(size=shape),
        "ref": old + 0.5 * rng.normal(size=shape),
        "entropies": rng.exponential(1.0, shape),
        "advantages": rng.normal(size=len(LENGTHS)),
        "mask": np.arange(LONGEST)[None] < np.array(LENGTHS)[:, None],
    }
    return {name: values.astype(np.float32) for name, values in arrays.items()}


def rlframe_loss(objective: Objective, tensors: dict[str, np.ndarray]) -> tuple[float, np.ndarray, float]:
    """-> loss, its gradients in log-probabilities and entropies [2, B, T], and the share of clipped tokens."""
    mask = torch.tensor(tensors["mask"]).bool()
    lengths = mask.sum(1)
    sampled = torch.cat([torch.zeros(len(mask), PROMPT, dtype=torch.bool), mask], 1)
    packed = torch.cat([torch.ones(len(mask), PROMPT, dtype=torch.bool), mask], 1)

    def pack(values: torch.Tensor) -> torch.Tensor:  # [B, T] -> [tokens of prompts and completions], 0 at prompts
        return torch.where(sampled, torch.nn.functional.pad(values, (PROMPT, 0)), 0.0)[packed]

    def packed_tensor(name: str) -> torch.Tensor:
        return pack(torch.tensor(tensors[name]))

    weights = objective.algorithm.token_weights(lengths.float(), torch.zeros_like(lengths))
    whole = lengths + PROMPT
    batch = TrainBatch(
        token_ids=torch.zeros(int(whole.sum()), dtype=torch.int64),
        rollout_logprobs=packed_tensor("rollout"),
        old_logprobs=packed_tensor("old"),
        ref_logprobs=packed_tensor("ref") if objective.needs_reference else None,
        advantages=pack(torch.tensor(tensors["advantages"])[:, None].expand(mask.shape)),
        loss_weights=pack(weights[:, None].expand(mask.shape)),
        mean_weights=pack((weights / (weights * lengths).sum())[:, None].expand(mask.shape)),
        sequence_ids=torch.repeat_interleave(torch.arange(len(whole)), whole),
        position_ids=torch.cat([torch.arange(int(length)) for length in whole]),
    )
    logprobs = torch.tensor(tensors["logprobs"]).requires_grad_()
    entropies = torch.tensor(tensors["entropies"]).requires_grad_()
    loss = objective.loss(pack(logprobs), pack(entropies), batch)
    gradients = torch.autograd.grad(loss, [logprobs, entropies], allow_unused=True, materialize_grads=True)
    measured = objective.measure(pack(logprobs).detach(), pack(entropies).detach(), batch)
    return loss.item(), torch.stack(gradients).numpy(), measured["stopped"] / measured["tokens"]


if __name__ == "__main__":
    main()
