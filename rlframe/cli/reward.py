"""`rlframe reward list` and `rlframe reward try`."""

from __future__ import annotations

import argparse
from pathlib import Path

from rlframe.cli import exits


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser("rlframe reward", description="Rewards: what there is, and a look at a new one.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("list", help="the rewards there are, and their settings")
    trial = verbs.add_parser("try", help="score completions that a run has saved")
    trial.add_argument("name", help="a built-in name, my_rewards.py:Mine or my_package.rewards:Mine")
    trial.add_argument(
        "settings", nargs="*", metavar="key=value", help="the reward's own; else as in that run's config"
    )
    trial.add_argument("--rollouts", type=Path, required=True, help="a run directory")
    trial.add_argument("--limit", type=int, default=512, help="completions, of the newest steps first (default: 512)")
    trial.add_argument("--timeout", type=float, default=60.0, help="seconds for one call of the reward (default: 60)")
    options = parser.parse_args(arguments)
    if options.verb == "list":
        return _list()
    return _try(options.name, options.settings, options.rollouts, options.limit, options.timeout)


def _list() -> int:
    from rlframe.reward import BUILTIN, Reward

    for name, reward in sorted(BUILTIN.items()):
        settings = [field for field in reward.model_fields if field not in Reward.model_fields]
        print(f"{name:<12} {(reward.__doc__ or '').strip().splitlines()[0]}")
        print(f"{'':<12} settings: {', '.join(settings) or 'none'}")
    return 0


def _try(name: str, settings: list[str], run_dir: Path, limit: int, timeout_s: float) -> int:
    from pydantic import ValidationError
    from rich.console import Console

    from rlframe import reward
    from rlframe.cli import reward_trial
    from rlframe.config import compose as config
    from rlframe.record import rollouts

    try:
        term = reward.build(config.reward_settings(name, settings, run_dir / "config.yaml"))
        groups = rollouts.read(run_dir, limit)
    except ValidationError as error:
        return exits.refuse(f"{name} cannot be made", config.describe(error))
    except ValueError as error:
        exits.complain(str(error))
        return exits.CONFIG
    if term.reads_tokens and (textual := reward_trial.without_tokens(groups)):
        return exits.refuse(
            f"{name} cannot be tried",
            f"{run_dir}: {name} reads tokens, and {textual} completions have their text alone, as an endpoint answers; "
            "try it on completions of engines",
        )
    reward_trial.show(reward_trial.score(term, groups, timeout_s), Console(highlight=False))
    return 0
