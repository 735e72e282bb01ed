"""`print_losses`: the effective time of runs with losses, over several seeds, and where the rest of the time goes."""

from __future__ import annotations

from dataclasses import replace
from statistics import fmean

from benchmarks.async_parts.losses import Losses
from benchmarks.async_parts.lossy import LossFigures, simulate_losses
from benchmarks.async_parts.settings import Policy, Scale

COLUMNS = [
    "policy",
    "seed",
    "effective time",
    "s without / with losses",
    "engines / learners lost",
    "updates done twice",
    "tokens sampled twice",
    "s no learner / replay / broken steps / other",
]


def print_losses(scale: Scale, policies: list[Policy], losses: Losses, seeds: int) -> None:
    """Prints a row for each policy and seed, and the mean of each policy."""
    print(f"{scale}\n{losses}\na step of the learner takes {scale.step_s:.1f} s\n\n{_line(COLUMNS)}")
    print(_line(["---"] * len(COLUMNS)))
    for policy in policies:
        shares = []
        for seed in range(scale.seed, scale.seed + seeds):
            seeded = replace(scale, seed=seed)
            without = simulate_losses(seeded, policy, replace(losses, share=0.0))
            figures = simulate_losses(seeded, policy, losses)
            shares.append(effective_time(without, figures))
            print(_line([str(policy), str(seed), f"{shares[-1]:.3f}", *_cells(without, figures)]), flush=True)
        spread = f"{fmean(shares):.3f} ({min(shares):.3f} to {max(shares):.3f})"
        print(_line([str(policy), "all", spread, *[""] * (len(COLUMNS) - 3)]), flush=True)


def effective_time(without: LossFigures, figures: LossFigures) -> float:
    """Seconds of the run without losses, as a share of the seconds of the same steps with them."""
    return without.seconds / figures.seconds


def _cells(without: LossFigures, figures: LossFigures) -> list[str]:
    lost = figures.seconds - without.seconds
    parts = (figures.restart_s, figures.again_s, figures.cut_s, lost - figures.learner_lost_s)
    return [
        f"{without.seconds:.0f} / {figures.seconds:.0f}",
        f"{figures.engine_losses} / {figures.learner_losses}",
        f"{figures.steps_again}",
        f"{figures.tokens_again} of {figures.tokens}",
        " / ".join(f"{seconds:.0f}" for seconds in parts),
    ]


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
