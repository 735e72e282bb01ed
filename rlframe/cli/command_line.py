"""The jobs of a command line: Hydra composes the config of each; a refused config ends with words and exit code 2."""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlframe.cli import exits
from rlframe.config import compose as config
from rlframe.config import environment
from rlframe.config.compose import Run
from rlframe.errors import ConfigError, RunFailed

if TYPE_CHECKING:
    from rlframe.config.keys import SharedKeys

AUTO = "auto"  # of the key resume


def run_jobs(verb: str, arguments: list[str], start: Callable[[Any], None], config_name: str = "train") -> int:
    """Lets `start` run every job of the command line, of which a multirun has several; returns the worst exit code.

    `start` gets the config that Hydra composed from `config_name`. It may raise ConfigError, RunFailed and Stop.
    """
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    exit_codes: list[int] = []  # collected here, because Hydra drops the return value of a job

    def job(composed: Any) -> None:
        _separate_folder(composed)
        try:
            exit_codes.append(_exit_code(start, composed))
        except ConfigError as error:
            raise _Refused(str(error)) from None
        if exit_codes[-1] == exits.STOPPED:
            sys.exit(exits.STOPPED)  # skips the remaining jobs of a multirun

    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises its errors instead of printing them
    sys.argv = [f"rlframe {verb}", *arguments]
    try:
        hydra.main(version_base="1.3", config_path=str(config.conf_dir()), config_name=config_name)(job)()
    except _Refused as refused:
        return exits.refuse("This config cannot run", str(refused))
    except (HydraException, OmegaConfBaseException) as error:
        return exits.refuse("This config cannot run", _with_suggestion(str(error), config_name))
    return max(exit_codes, default=0)


def composed(name: str, overrides: list[str]) -> Any:
    """The config of a verb that starts no run, without Hydra's options. Raises ConfigError."""
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        with initialize_config_dir(str(config.conf_dir()), version_base="1.3"):
            return compose(name, overrides)
    except (HydraException, OmegaConfBaseException) as error:
        message, _, _ = _with_suggestion(str(error), name).partition("Config search path")
        raise ConfigError(" ".join(message.split())) from None


class _Refused(BaseException):
    """A config error on its way through Hydra, which would print the overrides of every Exception."""


def _separate_folder(composed: Any) -> None:
    """Gives each job of a sweep a folder of its own: a draw's is draw.dir; run_dir has the time of the first job."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    hydra = HydraConfig.get()
    if hydra.mode == RunMode.MULTIRUN and not any(key.startswith("run_dir=") for key in hydra.overrides.task):
        folder = "draw.dir" if "draw" in composed else "run_dir"  # run_dir of a draw is ${draw.dir}
        OmegaConf.update(composed, folder, f"{composed.run_dir}_{hydra.job.num}")


def start_or_go_on(composed: Any, kind: type[Run], begin: Callable[[Run], None]) -> None:
    """Checks a composed config, or with `resume` the saved config of that run updated by the command line, and begins.

    A run that is complete is not begun. Raises ConfigError.
    """
    from rlframe.train.completion import is_complete

    run = _checked(composed, kind)
    if not run.resume:
        refuse_used_folder(run, f"go on with it by resume={run.run_dir}, or choose another folder")
    elif is_complete(run):
        print(
            f"The run in {run.run_dir} is complete: all {run.last_step} steps are taken. A greater steps=N takes more."
        )
        return
    environment.provide(run.secrets)
    begin(run)


def _checked(composed: Any, kind: type[Run]) -> Run:
    """The checked config of a job. With `resume`, the saved config of that run, updated by the command line."""
    from hydra.core.hydra_config import HydraConfig

    overrides = list(HydraConfig.get().overrides.task)
    run_dir = _run_to_resume(composed, overrides)
    if run_dir is not None:
        saved = run_dir / "config.yaml"
        if not saved.is_file():
            raise ConfigError(f"resume: {run_dir} holds no run: there is no {saved}")
        composed = config.merge_saved(saved, composed, overrides)
        composed.run_dir = str(run_dir)
    composed.resume = None if run_dir is None else str(run_dir)
    return config.load(composed, kind)


def _run_to_resume(composed: Any, overrides: list[str]) -> Path | None:
    """The folder of the run that goes on; None: a new run. `auto` decides it by the files in `run_dir`."""
    from rlframe.record.directory import RunDir

    if composed.resume != AUTO:
        return None if composed.resume is None else Path(composed.resume)
    if not any(override.startswith("run_dir=") for override in overrides):
        raise ConfigError(
            "resume: auto goes on with the run in run_dir, and the default folder is a new one each time; set "
            "run_dir=DIR, the same one each time"
        )
    files = RunDir(Path(composed.run_dir))
    return files.path if files.holds_a_run() else None


def refuse_used_folder(run: SharedKeys, remedy: str) -> None:
    """Raises ConfigError if the run's folder holds another run."""
    from rlframe.record.directory import RunDir

    files = RunDir(Path(run.run_dir))
    if files.holds_a_run():
        raise ConfigError(f"run_dir: {files.path} holds a run already; {remedy}")


def _exit_code(start: Callable[[Any], None], composed: Any) -> int:
    from rlframe.train.signals import Stop

    try:
        start(composed)
    except Stop:
        return exits.STOPPED
    except RunFailed as failure:
        exits.complain(str(failure))
        return exits.FAILED
    return 0


def _with_suggestion(message: str, config_name: str) -> str:
    """Hydra's message, or for an unknown key one line with the known keys nearest to it."""
    unknown = re.search(r"full_key: (\S+)", message) or re.search(r"Could not override '([^']+)'", message)
    if unknown is None:
        return message
    near = difflib.get_close_matches(unknown[1], _known_keys(config_name), n=3)
    return f"{unknown[1]}: there is no such key" + (f"; did you mean {', '.join(near)}?" if near else "")


def _known_keys(config_name: str) -> list[str]:
    """Every key of the default config, dotted."""
    from hydra import compose, initialize_config_dir
    from omegaconf import DictConfig

    def walk(node: DictConfig, path: str) -> Iterator[str]:
        for key in node:
            yield f"{path}{key}"
            if isinstance(child := node._get_node(key), DictConfig):
                yield from walk(child, f"{path}{key}.")

    with initialize_config_dir(str(config.conf_dir()), version_base="1.3"):
        return list(walk(compose(config_name), ""))
