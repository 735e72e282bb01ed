"""`rlframe plan`: what a run would need, on machines that are described, of a Ray cluster, or this one."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rlframe.cli import command_line, exits
from rlframe.config import compose as config
from rlframe.errors import ConfigError

if TYPE_CHECKING:
    from rlframe.config.run import RunConfig
    from rlframe.plan.machines import Machine

USAGE = """rlframe plan experiment=NAME [key=value ...] [--cluster 4x8xH100 | --address HOST:PORT] [--json]

Says what a run would need, and starts nothing: what runs where, parameters, bytes of a rank (kept, and at the worst
instant), memory of hosts and /dev/shm, an engine's room for keys and values, bytes of a sync of weights, seconds of a
step by stated speeds, and whether it fits; if not, the keys that would make it fit. Needs no GPU and no weights: a
model.path with a config.json is enough. The config is that of `rlframe train`.

  --cluster 4x8xH100       4 nodes of 8 GPUs; 8xH100 is a node; 2x8xH100,4xcpu are 2 nodes with GPUs and 4 without
  --host-gib N, --shm-gib N
                           memory and /dev/shm of each node of --cluster; else a usual size for the kind of GPU
  --address HOST:PORT      the nodes of a running Ray cluster; auto: the cluster of this machine
  (neither)                this machine; where it lacks the GPUs, as many nodes of 8 plan.gpu (H100) as the run needs
  --json                   the figures as JSON, in bytes and seconds
  plan.*                   assumptions about speeds: shares of stated FLOP/s and bandwidth, mean lengths

Exit code 0: fits, 1: does not or may not, 2: the config or the machines are wrong.
"""
DEFAULT_GPU = "H100"
NODE_GPUS = 8


def main(arguments: list[str]) -> int:
    """Prints the plan of every job of the command line; returns the worst exit code."""
    if {"-h", "--help"} & set(arguments):
        print(USAGE, end="")
        return 0
    try:
        options, overrides = options_and_overrides(arguments)
    except ConfigError as error:
        return exits.refuse("This plan cannot be made", str(error))
    codes: list[int] = []
    code = command_line.run_jobs("plan", overrides, lambda composed: codes.append(_plan(composed, options)))
    return max([code, *codes])


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        raise ConfigError(f"{message}; see rlframe plan --help")


def options_and_overrides(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Options of the plan, and overrides for Hydra. Raises ConfigError."""
    parser = _Parser("rlframe plan", add_help=False, allow_abbrev=False)
    machines = parser.add_mutually_exclusive_group()
    machines.add_argument("--cluster")
    machines.add_argument("--address")
    parser.add_argument("--host-gib", type=float)
    parser.add_argument("--shm-gib", type=float)
    parser.add_argument("--json", action="store_true")
    options, overrides = parser.parse_known_args(arguments)
    for name in ("host_gib", "shm_gib"):
        value = getattr(options, name)
        if value is not None and value <= 0:
            raise ConfigError(f"--{name.replace('_', '-')}: {value:g} is no size; give GiB above 0")
        if value is not None and options.cluster is None:
            raise ConfigError(f"--{name.replace('_', '-')}: describes nodes of --cluster, and there is none")
    if options.cluster is not None:
        from rlframe.plan.machines import parse_cluster

        options.cluster = parse_cluster(options.cluster, options.host_gib, options.shm_gib)
    return options, overrides


def _plan(composed: Any, options: argparse.Namespace) -> int:
    from rlframe.plan.check import plan_run
    from rlframe.plan.figures import figures
    from rlframe.plan.remedies import find_remedy
    from rlframe.plan.report import report

    composed.resume = None
    run = config.load(composed)
    plan = plan_run(run, _machines(run, options))
    remedy = find_remedy(plan)
    print(json.dumps(figures(plan, remedy), indent=2) if options.json else report(plan, remedy))
    return 0 if plan.fits else exits.FAILED


def _machines(run: RunConfig, options: argparse.Namespace) -> list[Machine]:
    from rlframe.plan.machines import parse_cluster, this_machine

    if options.cluster is not None:
        return options.cluster
    if options.address is not None:
        from rlframe.plan.nodes import machines_of_cluster

        return machines_of_cluster(options.address, allow_open=run.cluster.allow_open)
    from rlframe.plan.plan import gpu_of

    wanted = run.rollout.engines.min * run.rollout.gpus * (run.placement == "separate")
    wanted += run.learner.ranks * run.learner.gpus
    wanted += sum(teacher.engines * teacher.engine(run.rollout).gpus for teacher in run.teachers.values())
    here = this_machine(with_gpus=wanted > 0)
    if wanted <= here[0].gpus:
        return here
    kind = gpu.name if (gpu := gpu_of(run)) else DEFAULT_GPU
    nodes, gpus = -(-wanted // NODE_GPUS), min(wanted, NODE_GPUS)
    return parse_cluster(f"{nodes}x{gpus}x{kind}")
