"""Plain class -> Ray actor, here and only here; placement; teardown that leaves nothing behind."""

from __future__ import annotations

import math
import os
import re
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import psutil
import ray
from ray.util.placement_group import placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from rlframe.actors.calls import numbered, wait
from rlframe.actors.lane import Lane
from rlframe.errors import RunFailed, Stalled
from rlframe.learner.group import LearnerGroup
from rlframe.learner.rank import LearnerRank
from rlframe.objective import Objective
from rlframe.reward.pool import RewardPool
from rlframe.reward.worker import RewardWorker
from rlframe.rollout.pool import RolloutPool
from rlframe.schema import user_modules

if TYPE_CHECKING:
    from ray.actor import ActorHandle

    from rlframe.config.run import RunConfig
    from rlframe.reward.base import Reward
    from rlframe.reward.config import RewardConfig

MIB = 1 << 20
GIB = 1 << 30
REWARDS_IN_FLIGHT = 64  # calls that wait or run at a reward worker
ENGINE_CALLS = 1000  # an engine's calls run on one event loop; this only lifts Ray's bound
REWARD_CALLS = 1000  # and so do a reward worker's
ANSI_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
LAST_LINES = 40  # of a failed actor's output
# glibc gives large blocks back to the kernel when they are freed, and every new tensor's pages are then faulted in and
# zeroed: more than a third of a step on a CPU. With these it takes from its heap, and the heap stays (mallopt(3)).
KEEPS_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40)}
SHUTDOWN_S = 20.0  # for actors to end what they started; then they are killed


class ActorFailed(RunFailed):
    """An actor raised or died. The message begins with its name, then has its own traceback and its last output."""


class Actors(NamedTuple):
    """A run's actors behind their handles."""

    rollouts: RolloutPool
    rewards: RewardPool
    learner: LearnerGroup


@contextmanager
def start(run: RunConfig, model_path: Path) -> Iterator[Actors]:
    """Joins or makes the Ray cluster, starts every actor, and at the end takes all of it down again.

    Raises Stalled naming the actors that did not start within `cluster.start_timeout_s`, and what the
    cluster had to offer.
    """
    namespace = f"rlframe-{uuid.uuid4().hex[:8]}"
    handles: dict[str, ActorHandle] = {}  # name -> actor, for waiting and for the end
    _init(run, namespace)
    try:
        yield _start_actors(run, model_path, namespace, handles)
    except ray.exceptions.RayError as error:
        raise ActorFailed(_describe(error)) from None
    finally:
        _end(handles)


def _init(run: RunConfig, namespace: str) -> None:
    common: dict[str, Any] = {"namespace": namespace, "log_to_driver": False, "logging_level": "ERROR"}
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray's own advice against its warning
    if run.cluster.address is None:
        # Cores are shared on a laptop: generation and learning take turns, so each may use all of them.
        demand = run.rollout.engines * run.rollout.cpus + run.learner.ranks * run.learner.cpus
        with _own_process_group():
            ray.init(
                "local",
                num_cpus=math.ceil(demand + _reward_cpus(run.reward)),
                object_store_memory=int(run.cluster.object_store_gib * GIB),
                include_dashboard=False,
                **common,
            )
    else:
        ray.init(run.cluster.address, **common)
    send_user_modules()


def send_user_modules() -> None:
    """Lets classes from a user's own files travel by value: workers may have neither the file nor its folder."""
    for name in user_modules:
        ray.cloudpickle.register_pickle_by_value(sys.modules[name])


def _reward_cpus(config: RewardConfig) -> float:
    own = [term.actors for term in config.terms.values() if term.actors is not None]
    return config.workers * config.cpus + sum(actors.count * actors.cpus for actors in own)


@contextmanager
def _own_process_group() -> Iterator[None]:
    """Processes that start inside are no part of the driver's process group.

    Ctrl-C, `timeout` and Slurm signal a whole group. Ray's processes would die of it while the driver still
    wants to save; this way the driver alone decides, and ends them when it has saved.
    """
    home = os.getpgrp()
    anchor = subprocess.Popen(["cat"], stdin=subprocess.PIPE, process_group=0)  # holds the new group open
    try:
        with suppress(PermissionError):  # the leader of a session cannot leave its group
            os.setpgid(0, anchor.pid)
        yield
    finally:
        if os.getpgrp() != home:
            os.setpgid(0, home)
        anchor.communicate()


def _start_actors(run: RunConfig, model_path: Path, namespace: str, handles: dict[str, ActorHandle]) -> Actors:
    deadline = time.monotonic() + run.cluster.start_timeout_s
    engines = _start_engines(run, model_path, handles)
    ranks = _start_ranks(run, model_path, handles)
    lanes = start_lanes(run.reward, handles)
    _start({name: handle.__ray_ready__.remote() for name, handle in handles.items()}, "start", deadline)
    meeting = meeting_point(ranks[0])
    connected = [handle.connect.remote(meeting, rank, run.cluster.stall_timeout_s) for rank, handle in enumerate(ranks)]
    _start(
        numbered("learner", connected) | _join_transfer(run, namespace, engines),
        "load the model",
        deadline,
    )
    if run.kl is not None:
        copied = [rank.keep_reference.remote(run.kl.offload) for rank in ranks]
        _start(numbered("learner", copied), "copy the reference", deadline)
    if run.weights.backend == "object_store":
        settings = (run.weights.chunk_mib * MIB, run.weights.full_every)
        ready = [rank.prepare_publishing.remote(*settings) for rank in ranks]
        _start(numbered("learner", ready), "prepare to publish weights", deadline)
    else:
        _join_gpu_transfer(run, engines, ranks, deadline)
    _start(numbered("rollout", [engine.stamp.remote(0) for engine in engines]), "take version 0", deadline)
    return Actors(
        RolloutPool(engines, update_timeout_s=run.cluster.stall_timeout_s),
        RewardPool(run.reward.terms, lanes, attempts=run.reward.attempts, max_failed_share=run.reward.max_failed_share),
        LearnerGroup(
            ranks,
            objective(run),
            micro_batch_tokens=run.learner.micro_batch_tokens,
            share_prompts=run.learner.shares_prompts,
            sequence_parallel=run.learner.sequence_parallel,
            gpu_links=run.weights.backend != "object_store",
            timeout_s=run.cluster.stall_timeout_s,
            max_skipped=run.learner.max_skipped,
        ),
    )


def objective(run: RunConfig) -> Objective:
    """What a step of this run descends; a correction that the mismatch gate switches on is not on yet."""
    return Objective(
        algorithm=run.algorithm,
        kl=run.kl,
        correction=None if run.mismatch.action == "correct" else run.correction,
        entropy_bonus=run.learner.entropy_bonus,
    )


def _start_engines(run: RunConfig, model_path: Path, handles: dict[str, ActorHandle]) -> list[ActorHandle]:
    from rlframe.rollout.vllm import VLLMEngine

    length = run.prompts.max_tokens + run.rollout.max_tokens
    options = {
        "num_cpus": run.rollout.cpus,
        "num_gpus": run.rollout.gpus,
        "max_concurrency": ENGINE_CALLS,
        "runtime_env": {"env_vars": _environment(run.rollout.cpus, gpus=run.rollout.gpus)},
    }
    engines = []
    for index in range(run.rollout.engines):
        name = f"rollout-{index}"
        arguments = (name, run.rollout, model_path, length, run.weights.backend)
        engines.append(_actor(name, VLLMEngine, arguments, options, handles))
    return engines


def _start_ranks(run: RunConfig, model_path: Path, handles: dict[str, ActorHandle]) -> list[ActorHandle]:
    """The ranks' places are reserved together: a part of a learner would only wait for the rest."""
    bundle = {"CPU": run.learner.cpus} | ({"GPU": run.learner.gpus} if run.learner.gpus else {})
    group = placement_group([bundle] * run.learner.ranks, strategy="PACK")
    environment = _environment(run.learner.cpus, gpus=run.learner.gpus) | (
        {} if run.learner.gpus else {"DS_ACCELERATOR": "cpu"}
    )
    ranks = []
    for index in range(run.learner.ranks):
        name = f"learner-{index}"
        options = {
            "num_cpus": run.learner.cpus,
            "num_gpus": run.learner.gpus,
            "scheduling_strategy": PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index),
            "runtime_env": {"env_vars": environment},
        }
        arguments = (name, run.learner, model_path, run.rollout.temperature, run.steps)
        ranks.append(_actor(name, LearnerRank, arguments, options, handles))
    return ranks


def start_lanes(config: RewardConfig, handles: dict[str, ActorHandle]) -> list[Lane]:
    """Workers for the rewards that share them, and for each that has actors of its own."""
    shared = {name: term for name, term in config.terms.items() if term.actors is None}
    lanes = (
        [_start_lane("reward", shared, config, config.workers, {"num_cpus": config.cpus}, handles)] if shared else []
    )
    for name, term in config.terms.items():
        if term.actors is not None:
            options: dict[str, Any] = {"num_cpus": term.actors.cpus, "num_gpus": term.actors.gpus}
            if term.actors.pip:
                options["runtime_env"] = {"pip": term.actors.pip}
            lanes.append(_start_lane(f"reward-{name}", {name: term}, config, term.actors.count, options, handles))
    return lanes


def _start_lane(
    name: str,
    terms: dict[str, Reward],
    config: RewardConfig,
    count: int,
    options: dict[str, Any],
    handles: dict[str, ActorHandle],
) -> Lane:
    workers = {}
    for index in range(count):
        worker = f"{name}-{index}"
        # Restarted however often it dies: what it was doing is asked for again by its lane, not by Ray.
        options = options | {"max_restarts": -1, "max_task_retries": 0, "max_concurrency": REWARD_CALLS}
        workers[worker] = _actor(worker, RewardWorker, (worker, terms, config.timeout_s), options, handles)
    return Lane(list(terms), workers, max_in_flight=REWARDS_IN_FLIGHT, max_deaths=config.attempts)


def _actor(
    name: str, cls: type, arguments: tuple[Any, ...], options: dict[str, Any], handles: dict[str, ActorHandle]
) -> ActorHandle:
    handles[name] = ray.remote(cls).options(name=name, **options).remote(*arguments)
    return handles[name]


def _environment(cpus: int, *, gpus: int) -> dict[str, str]:
    """What an actor's process is started with."""
    on_cpu = {} if gpus else KEEPS_MEMORY
    return on_cpu | {
        "OMP_NUM_THREADS": str(max(1, cpus)),
        "HF_HUB_OFFLINE": "1",  # an actor reads a folder; whatever is downloaded, the driver downloads
        "TOKENIZERS_PARALLELISM": "false",
        "VLLM_NO_USAGE_STATS": "1",
    }


def _join_transfer(run: RunConfig, namespace: str, engines: list[ActorHandle]) -> dict[str, ray.ObjectRef]:
    if run.weights.backend != "object_store":
        return {}
    address = ray.get_runtime_context().gcs_address
    return numbered("rollout", [engine.join_object_store.remote(address, namespace) for engine in engines])


def _join_gpu_transfer(run: RunConfig, engines: list[ActorHandle], ranks: list[ActorHandle], deadline: float) -> None:
    meeting = meeting_point(ranks[0])
    workers = len(engines) * max(1, run.rollout.gpus)
    joined = [rank.join_engines.remote(run.weights.backend, engines, meeting, workers) for rank in ranks]
    _start(numbered("learner", joined), f"join weights.backend={run.weights.backend}", deadline)


def meeting_point(actor: ActorHandle) -> str:
    """host:port on the actor's machine, free a moment ago: where torch.distributed lets ranks meet."""

    def free_port(_: object) -> str:
        with socket.socket() as probe:
            probe.bind(("", 0))
            return f"{ray.util.get_node_ip_address()}:{probe.getsockname()[1]}"

    return ray.get(actor.__ray_call__.remote(free_port))


def _start(calls: dict[str, ray.ObjectRef], doing: str, deadline: float) -> None:
    """Waits for calls of the start. Raises Stalled, which also says what the cluster has to offer."""
    try:
        wait(calls, doing, deadline - time.monotonic(), "cluster.start_timeout_s")
    except Stalled as error:
        there, free = _resources(ray.cluster_resources()), _resources(ray.available_resources())
        raise Stalled(f"{error}; the cluster has {there}, free {free}") from None


def _resources(amounts: dict[str, float]) -> str:
    return ", ".join(f"{kind} {amounts.get(kind, 0):g}" for kind in ("CPU", "GPU"))


def _end(handles: dict[str, ActorHandle]) -> None:
    """Lets actors end their own processes, ends the actors, and kills what is left of this driver's offspring."""
    offspring = psutil.Process().children(recursive=True)
    try:
        polite = [handle.shutdown.remote() for name, handle in handles.items() if name.startswith("rollout")]
        polite += [handle.close.remote() for name, handle in handles.items() if name.startswith("reward")]
        ray.wait(polite, num_returns=len(polite), timeout=SHUTDOWN_S) if polite else None
        for handle in handles.values():
            ray.kill(handle)
    finally:
        ray.shutdown()
        _, alive = psutil.wait_procs(offspring, timeout=5)
        for process in alive:
            with suppress(psutil.NoSuchProcess):
                process.kill()


def _describe(error: ray.exceptions.RayError) -> str:
    """Which actor, what it raised, and the end of what it and its child processes printed."""
    text = ANSI_COLOUR.sub("", str(error)).rstrip()
    name = re.search(r"repr=([\w-]+)|\bname: ([\w-]+)", text)
    pid = re.search(r"pid[=:] ?(\d+)", text)
    who = (name[1] or name[2]) if name else "an actor"
    return f"{who} failed with {type(error).__name__}:\n{text}" + (_last_output(int(pid[1])) if pid else "")


def _last_output(pid: int) -> str:
    """The last lines that the actor's process wrote, where its log lies on this machine.

    vLLM runs the model in a child process, whose traceback is nowhere else.
    """
    logs = Path(ray._private.worker.global_worker.node.get_logs_dir_path())
    lines = [
        line for log in sorted(logs.glob(f"worker-*-{pid}.*")) for line in log.read_text(errors="replace").splitlines()
    ]
    return "\nits last output:\n" + "\n".join(f"  {line}" for line in lines[-LAST_LINES:]) if lines else ""
