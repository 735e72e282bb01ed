"""Compares rlframe's advantages, losses and gradients with those that the code of TRL and of verl computes.

    python benchmarks/peer_losses.py          # both
    python benchmarks/peer_losses.py verl     # verl only

Each peer runs in its own environment (peers.py), and gets the rewards and log-probabilities that rlframe gets. Prints a
line for each case of loss_cases.py: the largest difference of advantages, loss and gradient, in units of the largest
value. Fails where a value that must agree differs by more than 1e-6, and where a value that differs by intent agrees.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from loss_cases import LENGTHS, LONGEST, TRL_CASES, VERL_CASES, Case
from peers import TRL, VERL

from rlframe.algorithm import rate
from rlframe.batch.collate import collate
from rlframe.batch.records import to_record
from rlframe.batch.samples import deduct, to_samples
from rlframe.batch.sequences import to_train_sample
from rlframe.objective import kl
from rlframe.training import GroupRecord
from rlframe.types import Completion, FinishReason, Prompt, RewardTerm, RolloutGroup, ScoredGroup, VersionSpan

HERE = Path(__file__).parent
CUT_OFF = [2, 6]  # completions
GROUP = 4  # completions of a prompt
REWARD_WEIGHTS = [1000.0, 500.0]
TOLERANCE = 1e-6
PEERS = {
    "trl": (TRL, HERE / "peer_trl_losses.py", TRL_CASES),
    "verl": (VERL, HERE / "peer_verl_losses.py", VERL_CASES),
}
Values = dict[str, np.ndarray]  # advantages [B, T], loss [], gradient in log-probabilities and entropies [2, B, T]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("peers", nargs="*", default=list(PEERS), help=", ".join(PEERS))
    tensors = random_tensors()
    wrong = [name for name in parser.parse_args().peers if not agree(name, tensors)]
    sys.exit(f"definitions disagree with {', '.join(wrong)}" if wrong else 0)


def agree(peer: str, tensors: Values) -> bool:
    """Prints the table of a peer. True if all values agree that must, and no others."""
    cases = PEERS[peer][2]
    theirs = peer_values(peer, tensors)
    print(f"{peer:27} advantages      loss  gradient")
    surprises = 0
    for name, case in cases.items():
        ours = rlframe_values(case, tensors)
        differences = {key: difference(ours[key] * case.factors.get(key, 1.0), theirs[f"{name}/{key}"]) for key in ours}
        columns = "  ".join(f"{value:8.1e}{' ' if key in case.equal else '*'}" for key, value in differences.items())
        print(f"{name:27}  {columns} {case.why}".rstrip())
        surprises += sum((value <= TOLERANCE) != (key in case.equal) for key, value in differences.items())
    print("* differs by intent")
    return surprises == 0


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest difference, in units of the largest value."""
    return float(np.abs(ours - theirs).max() / np.abs(ours).max())


def peer_values(peer: str, tensors: Values) -> Values:
    """case/name -> value, for each case and each name in `Values`."""
    framework, script, cases = PEERS[peer]
    settings = {name: {**case.peer, "on_policy": case.on_policy} for name, case in cases.items()}
    with tempfile.TemporaryDirectory() as folder:
        inputs, outputs = Path(folder) / "inputs.npz", Path(folder) / "outputs.npz"
        np.savez(inputs, **tensors)
        command = [str(framework.python()), str(script), str(inputs), str(outputs), json.dumps(settings)]
        subprocess.run(command, check=True, stdout=sys.stderr)
        return dict(np.load(outputs))


def random_tensors() -> Values:
    """[B, T] for completions, under policies some steps apart; `mask` marks the tokens of shorter completions.

    Rewards and their weights are large, so that the small number that each framework adds to a deviation before it
    divides does not matter.
    """
    rng = np.random.default_rng(3)
    shape = (len(LENGTHS), LONGEST)
    old = -rng.exponential(1.5, shape)
    arrays = {
        "logprobs": old + 0.2 * rng.normal(size=shape),
        "old": old,
        "rollout": old + 0.3 * rng.normal(size=shape),
        "ref": old + 0.5 * rng.normal(size=shape),
        "entropies": rng.exponential(1.0, shape),
        "mask": np.arange(LONGEST)[None] < np.array(LENGTHS)[:, None],
        "rewards": np.round(1000 * rng.normal(size=(len(LENGTHS), len(REWARD_WEIGHTS)))),
        "reward_weights": np.array(REWARD_WEIGHTS),
        "prompts": np.arange(len(LENGTHS)) // GROUP,
        "cut_off": np.isin(np.arange(len(LENGTHS)), CUT_OFF),
    }
    return {name: values.astype(np.float32).astype(np.float64) for name, values in arrays.items()}


def rlframe_values(case: Case, tensors: Values) -> Values:
    """What a run computes: rated groups, their samples packed into a batch, and the batch's loss."""
    objective = case.objective
    groups = scored_groups(tensors)
    if objective.kl and objective.kl.place == "reward":
        groups = deduct(groups, penalties(objective.kl, tensors))
    rated = rate(groups, objective.algorithm, case.truncated)
    advantages = [advantage for group in rated for advantage in group.advantages]
    trained = torch.tensor([advantage is not None for advantage in advantages])
    samples = [to_train_sample(sample, sample.body) for sample in to_samples(rated, objective.algorithm)]
    mask = torch.tensor(tensors["mask"]).bool() & trained[:, None]
    sampled = torch.tensor(np.concatenate([sample.sampled for sample in samples]))

    def pack(values: torch.Tensor) -> torch.Tensor:  # [B, T] -> [tokens of prompts and completions], 0 at prompts
        return torch.zeros(len(sampled), dtype=values.dtype).masked_scatter(sampled, values[mask])

    packed = {name: pack(torch.tensor(tensors[name])) for name in ("old", "rollout", "ref")}
    batch = collate(samples, "whole")
    batch = replace(
        batch,
        old_logprobs=packed["old"],
        rollout_logprobs=packed["rollout"],
        ref_logprobs=packed["ref"] if objective.needs_reference else None,
        advantages=batch.advantages.double(),
        loss_weights=batch.loss_weights.double(),
        mean_weights=batch.mean_weights.double(),
    )
    logprobs = torch.tensor(tensors["old" if case.on_policy else "logprobs"]).requires_grad_()
    entropies = torch.tensor(tensors["entropies"]).requires_grad_()
    loss = objective.loss(pack(logprobs), pack(entropies), batch)
    gradients = torch.autograd.grad(loss, [logprobs, entropies], allow_unused=True, materialize_grads=True)
    by_completion = torch.zeros(mask.shape, dtype=torch.float64).masked_scatter(mask, batch.advantages[sampled])
    return {
        "advantages": by_completion.numpy(),
        "loss": loss.detach().numpy(),
        "gradient": torch.stack(gradients).numpy(),
    }


def penalties(penalty: kl.KL, tensors: Values) -> dict[tuple[int, int], np.ndarray]:
    """(prompt, completion) -> [sampled tokens]: the KL that each token costs."""
    estimates = kl.estimate(penalty.estimator, torch.tensor(tensors["old"]), torch.tensor(tensors["ref"]))
    costs = (penalty.weight * estimates).float().numpy()
    return {divmod(index, GROUP): costs[index, :length] for index, length in enumerate(LENGTHS)}


def scored_groups(tensors: Values) -> list[GroupRecord]:
    """The completions with their rewards, a record for each prompt."""
    groups = []
    for start in range(0, len(LENGTHS), GROUP):
        rows = range(start, start + GROUP)
        scores = tensors["rewards"][rows]
        prompt = Prompt(id=str(start), messages=[], token_ids=[1, 2], reference="", task="")
        group = RolloutGroup.single_turn(prompt, [completion(LENGTHS[row], row in CUT_OFF) for row in rows])
        terms = {
            str(index): RewardTerm(weight=weight, scores=scores[:, index].tolist())
            for index, weight in enumerate(REWARD_WEIGHTS)
        }
        rewards = (scores @ np.array(REWARD_WEIGHTS)).tolist()
        scored = ScoredGroup(group=group, rewards=rewards, verdicts={}, terms=terms)
        groups.append(to_record(scored, body=scored, worker=""))
    return groups


def completion(length: int, cut_off: bool) -> Completion:
    reason: FinishReason = "length" if cut_off else "stop"
    return Completion(
        token_ids=np.zeros(length, np.int32),
        logprobs=np.zeros(length, np.float32),
        versions=[VersionSpan(version=0, start=0, end=length)],
        text="",
        finish_reason=reason,
    )


if __name__ == "__main__":
    main()
