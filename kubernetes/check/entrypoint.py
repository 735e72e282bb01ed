"""The command of a RayJob: it composes, its files are on shared volumes, and its actors fit the overlay's pods.

experiment=qwen3_gsm8k 'rollout.engines={min: 1, max: 3}', group rollout of at most 3 pods with 1 GPU: fits
the same with max: 4: "rollout-3 needs CPU 2, GPU 1 ...; the pods of rollout have no room left"
"""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from kubernetes.check.agreement import SECRET_NAME
from kubernetes.check.pods import HEAD, Pod
from kubernetes.check.problem import Manifest, Problem, of_kind, title
from kubernetes.check.selectors import LEARNER, REWARD, ROLLOUT

if TYPE_CHECKING:
    from rlframe.cluster.nodes import Node
    from rlframe.cluster.placement import Slot
    from rlframe.config.run import RunConfig

CONTEXT = 32_768  # of the stand-in for the model, whose files are not here
REQUIRED = {"resume": "auto", "cluster": "existing"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """`rlframe train KEY=VALUE ...` of a RayJob."""

    where: str
    overrides: list[str]

    def value(self, key: str) -> str | None:
        return next((each.partition("=")[2] for each in self.overrides if each.partition("=")[0] == key), None)


def commands(manifests: list[Manifest]) -> list[Command]:
    """The commands of all RayJobs, as the shell on the head splits them after Ray has joined them."""
    found = []
    for manifest in of_kind(manifests, "RayJob"):
        words = shlex.split(manifest["spec"].get("entrypoint") or "")
        words = shlex.split(subprocess.list2cmdline(words))  # by which `ray job submit` joins them
        found.append(Command(where=f"{title(manifest)} spec.entrypoint", overrides=words))
    return found


def check(manifests: list[Manifest], pods: list[Pod]) -> tuple[list[Problem], set[str]]:
    """Problems of the commands, and the groups whose rewards ask an endpoint outside."""
    problems: list[Problem] = []
    judged: set[str] = set()
    for command in commands(manifests):
        found = list(_words(command))
        if not found:
            found = list(_paths(command, pods))
            run = _compose(tuple(command.overrides[2:]))
            if isinstance(run, str):
                found.append(Problem(where=command.where, text=run, rule="entrypoint/config"))
            else:
                found += _fits(command, run, pods)
                for term, groups in judges(run, pods):
                    judged |= groups
                    found += _judge(command, run, term, [pod for pod in pods if pod.group in groups])
        problems += found
    if not commands(manifests):  # a standing cluster: the group of the component is for judges
        judged = {pod.group for pod in pods} & {"judge"}
    return problems, judged


def _words(command: Command) -> Iterator[Problem]:
    if command.overrides[:2] != ["rlframe", "train"]:
        text = f"must be `rlframe train ...`, not `{' '.join(command.overrides[:2])}`"
        yield Problem(where=command.where, text=text, rule="entrypoint/command")
        return
    for word in command.overrides:
        if "{" in word and "," in word and not any(space in word for space in " \t"):
            text = f"the shell expands {word}; put a space after each comma and colon"
            yield Problem(where=command.where, text=text, rule="entrypoint/quoting")
        key, _, value = word.partition("=")
        if SECRET_NAME.search(key) and value not in ("", "null"):
            text = f"{key} is a secret in plain text; name an environment variable by key_env"
            yield Problem(where=command.where, text=text, rule="secret/plain")
    for key, value in REQUIRED.items():
        if command.value(key) != value:
            text = f"must have {key}={value}, so that a second attempt goes on with the run"
            yield Problem(where=command.where, text=text, rule=f"entrypoint/{key}")


def _paths(command: Command, pods: list[Pod]) -> Iterator[Problem]:
    """run_dir is on a shared volume of head, learner and rollout; a model's folder too."""
    folder, model = command.value("run_dir") or "", command.value("model.path") or ""
    if not folder.startswith("/"):
        text = f"run_dir={folder or '(default)'} is in the job's own folder, which goes with it; give an absolute path"
        yield Problem(where=command.where, text=text, rule="entrypoint/run_dir")
        return
    for pod in pods:
        if pod.group not in (HEAD, LEARNER, ROLLOUT):
            continue
        for key, path, writes in [
            ("run_dir", folder, True),
            *([("model.path", model, False)] if model[:1] == "/" else []),
        ]:
            if not _is_shared(pod, path, writes):
                text = f"{key}={path} is on no {'writable ' * writes}shared volume of the pods of {pod.group}"
                yield Problem(where=command.where, text=text, rule=f"entrypoint/{key}")


def _is_shared(pod: Pod, path: str, writes: bool) -> bool:
    shared = {each["name"] for each in pod.spec.get("volumes") or [] if "persistentVolumeClaim" in each}
    return any(
        mount["name"] in shared
        and Path(path).is_relative_to(mount["mountPath"])
        and not (writes and mount.get("readOnly"))
        for mount in pod.main.get("volumeMounts") or []
    )


@cache
def _compose(settings: tuple[str, ...]) -> RunConfig | str:
    """The run of a command, or the reason why it cannot run.

    A folder with a config.json stands for the model, whose files only the cluster has.
    """
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from rlframe.config.compose import conf_dir, load
    from rlframe.errors import ConfigError

    with TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps({"max_position_embeddings": CONTEXT}))
        overrides = [each for each in settings if not each.startswith("model.path=")]
        try:
            with initialize_config_dir(str(conf_dir()), version_base="1.3"):
                composed = compose("train", [*overrides, f"model.path={folder}"])
            composed.resume = None
            return load(composed)
        except (ConfigError, HydraException, OmegaConfBaseException) as error:
            return str(error).strip()


def _fits(command: Command, run: RunConfig, pods: list[Pod]) -> Iterator[Problem]:
    """Packs the actors of the run, all engines to come included, into the largest number of pods of each group."""
    from rlframe.cluster.nodes import Node
    from rlframe.cluster.placement import engine_slot, placement

    ray, engines = [pod for pod in pods if pod.is_ray], run.rollout.engines
    largest = max(pod.gpus for pod in ray)
    slots = placement(run, node_gpus=largest)
    later = [engine_slot(run.rollout, index, largest) for index in range(engines.min, engines.max)]
    nodes: list[tuple[str, Node]] = []
    for pod in ray:
        total = {"CPU": pod.cpus, "GPU": pod.gpus}
        nodes += [(pod.group, Node(total=total, free=dict(total), labels=pod.node_labels)) for _ in range(pod.most)]
    for slot in _reservations([*slots["learner"], *slots["rollout"], *later, *slots["reward"]]):
        fitting = [(group, node) for group, node in nodes if node.can_hold(slot)]
        home = next((node for _, node in fitting if _has_room(node, slot)), None)
        if home is None:
            groups = ", ".join(sorted({group for group, _ in fitting}))
            reason = f"the pods of {groups} have no room left" if groups else "no pod is like that"
            text = f"{slot.name} needs CPU {slot.cpus:g}, GPU {slot.gpus:g} and the labels {slot.labels}; {reason}"
            yield Problem(where=command.where, text=text, rule="entrypoint/fits")
            return
        home.free["CPU"] -= slot.cpus
        home.free["GPU"] -= slot.gpus
    for pod in ray:
        if pod.group == ROLLOUT and engines.min < engines.max and pod.least == pod.most:
            text = f"rollout.engines={engines} can change, and the group rollout has always {pod.most} pods"
            yield Problem(where=command.where, text=text, rule="entrypoint/elastic")


def _reservations(slots: list[Slot]) -> Iterator[Slot]:
    """Parts of the demand that must be on one pod each: a slot, or a bundle of a gang as one slot."""
    from rlframe.cluster.placement import Slot, bundles

    gangs: dict[str, list[Slot]] = {}
    for slot in slots:
        if slot.gang is None:
            yield slot
        else:
            gangs.setdefault(slot.gang, []).append(slot)
    for gang, members in gangs.items():
        for index, bundle in enumerate(bundles(members)):
            amounts = bundle.resources
            cpus, gpus = amounts.get("CPU", 0), amounts.get("GPU", 0)
            yield Slot(kind=gang, index=index, cpus=cpus, gpus=gpus, labels=bundle.labels)


def _has_room(node: Node, slot: Slot) -> bool:
    return node.free["CPU"] >= slot.cpus and node.free["GPU"] >= slot.gpus


def judges(run: RunConfig, pods: list[Pod]) -> Iterator[tuple[str, set[str]]]:
    """(reward, groups whose pods may hold it) of each reward that asks an endpoint outside the cluster."""
    from rlframe.cluster.placement import meet_labels

    for name, term in run.reward.terms.items():
        host = urlsplit(str(getattr(term, "base_url", ""))).hostname or ""
        if not host or host in ("localhost", "127.0.0.1") or host.endswith(".svc.cluster.local") or "." not in host:
            continue
        labels = term.actors.labels if term.actors and term.actors.labels is not None else run.reward.labels
        yield (
            name,
            {pod.group for pod in pods if pod.is_ray and pod.cpus and meet_labels(pod.node_labels, labels or {})},
        )


def _judge(command: Command, run: RunConfig, term: str, pods: list[Pod]) -> Iterator[Problem]:
    variable = getattr(run.reward.terms[term], "key_env", None)
    for pod in pods:
        if variable and variable not in pod.variables():
            text = f"reward.terms.{term}.key_env={variable} is no variable of the pods of {pod.group}"
            yield Problem(where=command.where, text=text, rule="entrypoint/key_env")
        if pod.group == REWARD:
            text = f"reward.terms.{term} asks an endpoint outside, which {REWARD} pods must not; give it actors.labels"
            yield Problem(where=command.where, text=text, rule="entrypoint/judge")
