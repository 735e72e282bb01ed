"""`rlframe stop JOB`: ends a submitted run with a checkpoint, and says which one."""

from __future__ import annotations

from rlframe.cli import exits, remote
from rlframe.errors import ConfigError, RunFailed

USAGE = """rlframe stop JOB [--address http://head:8265] [--allow-open]

Lets a submitted run save a checkpoint and end, and prints the checkpoint. The run has cluster.stop_timeout_s for it.
`rlframe jobs` lists the jobs. The same `rlframe submit` command goes on with the run.
"""
HEADLINE = "The job cannot be stopped"
PENDING = "PENDING"  # a job whose driver no node has started
AFTER_S = 30.0  # for Ray, beyond the time that the run has


def main(arguments: list[str]) -> int:
    """Stops the job; returns the exit code."""
    return remote.answered(USAGE, HEADLINE, arguments, _stop)


def _stop(arguments: list[str]) -> int:
    from rlframe.record.printed import read_stopped

    option, arguments = remote.take_option(arguments, remote.ADDRESS)
    allow_open, arguments = remote.take_flag(arguments, "--allow-open")
    if len(arguments) != 1 or arguments[0].startswith("-"):
        return exits.refuse("rlframe stop", USAGE)
    jobs = remote.connect(remote.address(option), allow_open=allow_open)
    job = jobs.get(arguments[0])
    if job.ended:
        raise ConfigError(f"{job.id}: it has ended already ({job.state.lower()}); see {job.run_dir}")
    jobs.stop(job.id)
    if job.state == PENDING:
        print(f"{job.id}: no node has started it yet, so there is no checkpoint; it ends once a node does")
        return 0
    print(f"{job.id}: stopping; its driver saves a checkpoint", flush=True)
    job = jobs.wait(job.id, job.stop_timeout_s + AFTER_S)
    if not job.ended:
        raise RunFailed(f"{job.id}: it is still {job.state.lower()}; see `rlframe jobs`")
    stopped = read_stopped(jobs.tail(job))
    if stopped is None:
        exits.complain(f"{job.id}: {job.state.lower()} before its first step, so {job.run_dir} has no new checkpoint")
        return exits.FAILED
    if stopped.checkpoint is None:
        exits.complain(f"{job.id}: stopped after step {stopped.step}, and left no checkpoint")
        return exits.FAILED
    print(f"{job.id}: stopped after step {stopped.step}; checkpoint: {stopped.checkpoint}")
    return 0
