"""`rlframe train`: Hydra composes the config, the config is checked, and the run starts."""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlframe.cli import exits
from rlframe.config import compose as config
from rlframe.errors import ConfigError, RunFailed

if TYPE_CHECKING:
    from rlframe.config.run import RunConfig


def main(arguments: list[str]) -> int:
    """Runs every job of the command line, of which a multirun has several; returns the worst exit code."""
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    exit_codes: list[int] = []  # collected here, because Hydra drops the return value of a job

    def job(composed: Any) -> None:
        exit_codes.append(_start(_checked(composed)))
        if exit_codes[-1] == exits.STOPPED:
            sys.exit(exits.STOPPED)  # skips the remaining jobs of a multirun

    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises its errors instead of printing them
    sys.argv = ["rlframe train", *arguments]
    try:
        hydra.main(version_base="1.3", config_path=str(config.conf_dir()), config_name="train")(job)()
    except ConfigError as error:
        return exits.refuse("This config cannot run", str(error))
    except (HydraException, OmegaConfBaseException) as error:
        return exits.refuse("This config cannot run", _with_suggestion(str(error)))
    return max(exit_codes, default=0)


def _checked(composed: Any) -> RunConfig:
    """The checked config of a job. With `resume`, the saved config of that run, updated by the command line."""
    from hydra.core.hydra_config import HydraConfig

    if composed.resume is not None:
        saved = Path(composed.resume) / "config.yaml"
        if not saved.is_file():
            raise ConfigError(f"resume: {composed.resume} holds no run: there is no {saved}")
        composed = config.merge_saved(saved, composed, list(HydraConfig.get().overrides.task))
        composed.run_dir = composed.resume
    return config.load(composed)


def _start(run: RunConfig) -> int:
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
        return exits.STOPPED
    except RunFailed as failure:
        print(failure, file=sys.stderr)
        return exits.FAILED
    return 0


def _with_suggestion(message: str) -> str:
    """Hydra's message, or for an unknown key one line with the known keys nearest to it."""
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

    with initialize_config_dir(str(config.conf_dir()), version_base="1.3"):
        return list(walk(compose("train"), ""))
