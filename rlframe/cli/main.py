"""`rlframe <verb>`."""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import rlframe

USAGE = f"""rlframe {rlframe.__version__}: reinforcement learning for language models on Ray

  rlframe train experiment=NAME [key=value ...]   run a job; --help lists groups and keys
  rlframe train resume=RUN_DIR [key=value ...]    go on where a run stood
  rlframe train ... --cfg job                     print the composed config
  rlframe train ... -m learner.lr=1e-6,2e-6       one run after the other (Hydra's multirun)
  rlframe reward list                             the rewards there are, and their settings
  rlframe reward try NAME --rollouts RUN_DIR      a reward, yours (my_rewards.py:Mine) or a built-in one, on saved
                                                  completions: spread, speed, failures, best and worst
"""
EXIT_CONFIG = 2  # the config cannot run; nothing was started
EXIT_FAILED = 1
EXIT_STOPPED = 130  # by a signal, after a checkpoint


def main() -> None:
    """Entry point of the console script."""
    verb = sys.argv[1] if len(sys.argv) > 1 else "--help"
    match verb:
        case "train":
            sys.exit(_train(sys.argv[2:]))
        case "reward":
            sys.exit(_reward(sys.argv[2:]))
        case "--version":
            print(rlframe.__version__)
        case "-h" | "--help" | "help":
            print(USAGE, end="")
        case _:
            print(f"rlframe: there is no verb {verb!r}\n\n{USAGE}", file=sys.stderr, end="")
            sys.exit(EXIT_CONFIG)


def conf_dir() -> Path:
    """The folder of YAML files: inside the package in an install, beside it in a clone."""
    package = Path(rlframe.__file__).parent
    return package / "conf" if (package / "conf").is_dir() else package.parent / "conf"


def _train(arguments: list[str]) -> int:
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from rlframe.errors import ConfigError

    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach us, to be told in our words
    sys.argv = ["rlframe train", *arguments]
    job = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="train")(_job)
    try:
        job()
    except ConfigError as error:
        print(f"This config cannot run:\n{_indent(str(error))}", file=sys.stderr)
        return EXIT_CONFIG
    except (HydraException, OmegaConfBaseException) as error:
        print(f"This config cannot run:\n{_indent(_with_suggestion(str(error)))}", file=sys.stderr)
        return EXIT_CONFIG
    return max(_OUTCOME, default=0)


_OUTCOME: list[int] = []  # exit codes of the jobs that Hydra ran; it keeps their return values for itself


def _job(composed: Any) -> None:
    from hydra.core.hydra_config import HydraConfig

    from rlframe.config import run as config
    from rlframe.errors import ConfigError

    if composed.resume is not None:
        saved = Path(composed.resume) / "config.yaml"
        if not saved.is_file():
            raise ConfigError(f"resume: {composed.resume} holds no run: there is no {saved}")
        composed = config.merge_saved(saved, composed, list(HydraConfig.get().overrides.task))
        composed.run_dir = composed.resume
    run = config.load(composed)
    _OUTCOME.append(outcome := _run(run))
    if outcome == EXIT_STOPPED:
        sys.exit(outcome)  # of a sweep, too


def _reward(arguments: list[str]) -> int:
    import argparse

    parser = argparse.ArgumentParser("rlframe reward", description="Rewards: what there is, and a look at a new one.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("list", help="the rewards there are, and their settings")
    trying = verbs.add_parser("try", help="score completions that a run has saved")
    trying.add_argument("name", help="a built-in name, my_rewards.py:Mine or my_package.rewards:Mine")
    trying.add_argument(
        "settings", nargs="*", metavar="key=value", help="the reward's own; else as in that run's config"
    )
    trying.add_argument("--rollouts", type=Path, required=True, help="a run directory")
    trying.add_argument("--limit", type=int, default=512, help="completions, of the newest steps first (default: 512)")
    trying.add_argument("--timeout", type=float, default=60.0, help="seconds for one call of the reward (default: 60)")
    asked = parser.parse_args(arguments)
    if asked.verb == "list":
        return _list_rewards()
    return _try_reward(asked.name, asked.settings, asked.rollouts, asked.limit, asked.timeout)


def _list_rewards() -> int:
    from rlframe.reward import BUILTIN, Reward

    for name, reward in sorted(BUILTIN.items()):
        own = [field for field in reward.model_fields if field not in Reward.model_fields]
        print(f"{name:<12} {(reward.__doc__ or '').strip().splitlines()[0]}")
        print(f"{'':<12} settings: {', '.join(own) or 'none'}")
    return 0


def _try_reward(name: str, settings: list[str], rollouts: Path, limit: int, timeout_s: float) -> int:
    from pydantic import ValidationError
    from rich.console import Console

    from rlframe import reward
    from rlframe.cli import reward_trial as trial
    from rlframe.config import run as config
    from rlframe.record import rollouts as saved

    try:
        term = reward.build(config.reward_settings(name, settings, rollouts / "config.yaml"))
        groups = saved.read(rollouts, limit)
    except ValidationError as error:
        print(f"{name} cannot be made:\n{_indent(config.describe(error))}", file=sys.stderr)
        return EXIT_CONFIG
    except ValueError as error:
        print(error, file=sys.stderr)
        return EXIT_CONFIG
    trial.show(trial.score(term, groups, timeout_s), Console(highlight=False))
    return 0


def _run(run: Any) -> int:
    from rlframe.errors import ConfigError, RunFailed
    from rlframe.record.directory import RunDir
    from rlframe.train.loop import train
    from rlframe.train.signals import Stop

    files = RunDir(Path(run.run_dir))
    if not run.resume and files.holds_a_run():
        raise ConfigError(
            f"run_dir: {files.path} holds a run already; go on with it by resume={files.path}, or choose another folder"
        )
    try:
        train(run)
    except Stop:
        return EXIT_STOPPED
    except RunFailed as failure:
        print(failure, file=sys.stderr)
        return EXIT_FAILED
    return 0


def _indent(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


def _with_suggestion(message: str) -> str:
    """Hydra's complaint about a key that is not there, and the keys that come nearest."""
    unknown = re.search(r"full_key: (\S+)", message) or re.search(r"Could not override '([^']+)'", message)
    if unknown is None:
        return message
    near = difflib.get_close_matches(unknown[1], _known_keys(), n=3)
    return f"{unknown[1]}: there is no such key" + (f"; did you mean {', '.join(near)}?" if near else "")


def _known_keys() -> list[str]:
    """Every key of the default config, dotted."""
    from hydra import compose, initialize_config_dir
    from omegaconf import DictConfig

    def walk(node: DictConfig, path: str) -> Iterator[str]:
        for key in node:
            yield f"{path}{key}"
            if isinstance(child := node._get_node(key), DictConfig):
                yield from walk(child, f"{path}{key}.")

    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return list(walk(compose("train"), ""))
