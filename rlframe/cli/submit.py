"""`rlframe submit`: checks the composed config, sends the run to a Ray cluster, and follows its output."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlframe.cli import command_line, exits, remote
from rlframe.config import compose as config
from rlframe.config.sent_files import CONF, OWN_CONF, SentFiles, override, sent_files
from rlframe.config.sent_secrets import refuse_sent_secrets
from rlframe.errors import ConfigError
from rlframe.schema import for_another_machine

if TYPE_CHECKING:
    from rlframe.cluster.jobs import Job, Jobs, Submission
    from rlframe.config.keys import SharedKeys

USAGE = """rlframe submit [tune | draw] experiment=NAME run_dir=/shared/... [key=value ...] [--address URL] [--no-wait]

Sends a run to a Ray cluster and prints what it prints, until it ends. The config is that of `rlframe train`, and after
the word `tune` or `draw` that of `rlframe tune` or `rlframe draw`; here is checked what does not depend on the
cluster's machines, and there the rest, before anything else. `conf/` and the files that the config names by relative
paths go along (at most 100 MiB), and of such folders (rows.path, draw.continue_from) the files part_* and step_*. The
same command goes on with a run that ended.

  run_dir=/shared/runs/first    a folder that all machines of the cluster share; required. Of a draw: draw.dir
  --address, cluster.address    the address of the cluster's dashboard; else RAY_API_SERVER_ADDRESS, RAY_ADDRESS or
                                http://127.0.0.1:8265. The token is that of RAY_AUTH_TOKEN_PATH
  resume=auto                   the default: go on with the run in run_dir, or start it
  --no-wait                     return once the job is sent; `rlframe jobs` and `rlframe stop JOB` find it again
  -m learner.lr=1e-6,2e-6       a job for each combination, in run_dir/0, run_dir/1, ...; draws in draw.dir_0, ...
  cluster.driver                CPUs and labels of the node for the driver; docs/clusters.md has more
"""
CONFIG_FOLDERS = {"main": CONF, "command-line": OWN_CONF}  # by Hydra's name of the source
OPTIONS = {CONF: "config-path", OWN_CONF: "config-dir"}
HEADLINE = "This run cannot be submitted"
TRAIN, TUNE, DRAW = "train", "tune", "draw"  # the verb of the job, and the name of its config
FOLDERS = {TRAIN: "run_dir", TUNE: "run_dir", DRAW: "draw.dir"}  # key of the job's folder, by verb


class _Prepared:
    """A run that passed the checks of this machine."""

    def __init__(self, run: SharedKeys, submission: Submission, address: str | None, sent: SentFiles) -> None:
        self.run = run
        self.submission = submission
        self.address = address
        self.sent = sent


def main(arguments: list[str]) -> int:
    """Sends every job of the command line; returns the exit code of the one that is followed."""
    return remote.answered(USAGE, HEADLINE, arguments, _submit)


def _submit(arguments: list[str]) -> int:
    option, arguments = remote.take_option(arguments, remote.ADDRESS)
    no_wait, arguments = remote.take_flag(arguments, "--no-wait")
    verb, arguments = (arguments[0], arguments[1:]) if {*arguments[:1]} & {*FOLDERS} else (TRAIN, arguments)
    arguments = _with_a_cluster(arguments)
    prepared: list[_Prepared] = []
    code = command_line.run_jobs("submit", arguments, lambda config: prepared.append(_prepare(verb, config)), verb)
    if code or not prepared:  # --cfg prints a config, and has no job
        return code
    first = prepared[0]
    url = remote.address(option, first.address)
    jobs = remote.connect(url, allow_open=all(job.run.cluster.allow_open for job in prepared))
    _refuse_used_folders(jobs, prepared)
    for job in prepared:
        for key, path in job.sent.kept.items():
            exits.complain(f"! {key}: {path} is taken for a file of the cluster; a relative path would send this one")
    job_ids = [_send(jobs, job) for job in prepared]
    if no_wait or len(job_ids) > 1:
        return 0
    return follow(jobs, job_ids[0])


def _with_a_cluster(arguments: list[str]) -> list[str]:
    """The arguments with a choice of the group `cluster`, beside the other overrides, since argparse splits no list.

    >>> _with_a_cluster(["-m", "seed=1,2", "--config-dir=mine"])
    ['-m', 'cluster=existing', 'seed=1,2', '--config-dir=mine']
    """
    if any(argument.lstrip("+").startswith("cluster=") for argument in arguments):
        return arguments
    overrides = (index for index, text in enumerate(arguments) if "=" in text and not text.startswith("-"))
    first = next(overrides, len(arguments))
    return [*arguments[:first], "cluster=existing", *arguments[first:]]


def follow(jobs: Jobs, job_id: str) -> int:
    """Prints the job's output until its end; returns its exit code."""
    from rlframe.record.text import printable

    def write(text: str) -> None:
        sys.stdout.write(printable(text))
        sys.stdout.flush()

    try:
        job = jobs.follow(job_id, write, lambda text: exits.complain(f"! {text}"))
    except KeyboardInterrupt:
        exits.complain(f"! the job goes on: `rlframe jobs`, `rlframe stop {job_id}`")
        return exits.STOPPED
    return _exit_code(job)


def _exit_code(job: Job) -> int:
    """The driver's own; a driver that was killed, or that never started, has failed."""
    match job.state:
        case "SUCCEEDED":
            return 0
        case "STOPPED":
            return exits.STOPPED
    if job.exit_code is None or job.exit_code == 127:  # 127: the shell did not find the command
        exits.complain(f"{job.id}: {job.message.strip() or job.state}")
    return exits.FAILED if job.exit_code in (None, 0) else job.exit_code


def _prepare(verb: str, composed: Any) -> _Prepared:
    """Checks a composed config of a verb as far as this machine can. Raises ConfigError."""
    from hydra.core.hydra_config import HydraConfig

    from rlframe.cluster.jobs import Submission

    overrides = list(HydraConfig.get().overrides.task)
    address = composed.cluster.address
    composed.cluster.address = "auto"  # the driver starts on a node of the cluster
    folder = FOLDERS[verb]
    _set_folder(composed, folder)
    with for_another_machine():
        run = _checked(verb, composed)
    # `rlframe train` makes the run's plan there, where the model and the machines are, before it starts anything.
    sent = sent_files(run.model_dump(), _config_folders())
    goes_on = verb == DRAW or any(text.startswith("resume=") for text in overrides)  # a draw does so by itself
    last = [
        *([] if goes_on else ["resume=auto"]),
        override(folder, run.run_dir),
        "cluster.address=auto",
        *sent.overrides,
    ]
    arguments = [*overrides, *last]
    submission = Submission(
        run_dir=run.run_dir,
        # exec: a signal reaches the driver, not a shell
        entrypoint=f"exec rlframe {verb} {_config_options(verb)} {shlex.join(arguments)}",
        files=sent.files,
        env_vars=run.cluster.env_vars,
        stop_timeout_s=run.cluster.stop_timeout_s,
        driver_cpus=run.cluster.driver.cpus,
        driver_labels=run.cluster.driver.labels,
    )
    refuse_sent_secrets(run, arguments, sent)
    return _Prepared(run, submission, address, sent)


def _checked(verb: str, composed: Any) -> SharedKeys:
    if verb == TRAIN:
        return config.load(composed)
    if verb == DRAW:
        from rlframe.cli.draw import load

        return load(composed)
    from rlframe.config.tune import TuneConfig

    return config.load(composed, TuneConfig)


def _config_folders() -> dict[str, Path]:
    """Name in the job's folder -> folder of YAML files of this command: conf/, and that of --config-dir."""
    from hydra.core.hydra_config import HydraConfig

    folders = {source.provider: Path(source.path) for source in HydraConfig.get().runtime.config_sources}
    return {name: folders[provider] for provider, name in CONFIG_FOLDERS.items() if provider in folders}


def _config_options(verb: str) -> str:
    """Hydra's options by which the job finds those folders, for a shell in the job's folder."""
    from hydra.core.hydra_config import HydraConfig

    options = [f'--{OPTIONS[name]}="$PWD/{name}"' for name in _config_folders()]
    if (name := HydraConfig.get().job.config_name) and name != verb:
        options.append(f"--config-name={shlex.quote(name)}")
    return " ".join(options)


def _set_folder(composed: Any, key: str) -> None:
    """Gives each job of a sweep a folder of its own in that of the key. Raises ConfigError for a relative folder."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    hydra = HydraConfig.get()
    written = [text.partition("=")[2] for text in hydra.overrides.task if text.startswith(f"{key}=")]
    folder = written[-1] if written else str(OmegaConf.to_container(composed, resolve=False)["run_dir"])  # type: ignore
    if not written or not Path(composed.run_dir).is_absolute():
        raise ConfigError(
            f"{key}: {folder} is relative to the job's own folder on the cluster, which goes with the job, and so "
            f"would its files; set {key}=/... on storage that the cluster's machines share"
        )
    if hydra.mode == RunMode.MULTIRUN and "${" not in folder and key == FOLDERS[TRAIN]:  # a draw has its own by now
        OmegaConf.update(composed, key, f"{composed.run_dir}/{hydra.job.num}")


def _refuse_used_folders(jobs: Jobs, prepared: list[_Prepared]) -> None:
    """Two drivers of a folder would take the run from each other."""
    folders = [job.run.run_dir for job in prepared]
    for folder in folders:
        if folders.count(folder) > 1:
            raise ConfigError(
                f"run_dir: {folder} is the folder of several jobs of this sweep; leave ${{...}} out of it"
            )
    for job in jobs.all():
        if not job.ended and job.run_dir in folders:
            raise ConfigError(
                f"run_dir: {job.run_dir} is the folder of {job.id}, which is {job.state.lower()}; stop it first "
                f"(rlframe stop {job.id}), or choose another folder"
            )


def _send(jobs: Jobs, job: _Prepared) -> str:
    job_id = jobs.submit(job.submission)
    files = len(job.submission.files)
    print(f"{job_id}  {job.submission.run_dir}  ({files} files, {job.sent.size() / 2**20:.1f} MiB, to {jobs.address})")
    sys.stdout.flush()
    return job_id
