"""A cluster of two nodes: a run whose learner is on the first and whose engines are on the second, and its failures."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import ray
from ray._private.internal_api import node_stats
from ray._private.state import actors as all_actors
from ray._private.state import available_resources_per_node

from rlframe.actors.failure import describe
from rlframe.actors.logs import kept_in
from rlframe.actors.table import node_id
from rlframe.cluster import ray_cluster
from rlframe.cluster import start as cluster
from rlframe.cluster.actor import start_actor
from rlframe.cluster.placement import Slot
from rlframe.config.run import RunConfig
from rlframe.config.train import CheckpointConfig
from rlframe.errors import RunFailed, Stalled
from rlframe.learner.group import LearnerGroup
from rlframe.learner.rank import LearnerRank
from rlframe.record.generation import Generation
from rlframe.train.checkpoint import Checkpoints
from tests.conftest import compose, tiny_overrides
from tests.tiny.nodes import Nodes, free_ports, two_nodes

ROLE = "rlframe.io/role"
CPUS = 4


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with TemporaryDirectory(prefix="ray") as folder, two_nodes(Path(folder), cpus=CPUS) as nodes:
        yield nodes


@pytest.fixture
def existing(nodes: Nodes, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Settings of a tiny run on the two nodes, which this process may join."""
    for name, value in nodes.environment.items():
        monkeypatch.setenv(name, value)
    return [*tiny_overrides(tiny_model), "cluster=existing", f"cluster.address={nodes.address}"]


@pytest.fixture
def joined(existing: list[str]) -> Iterator[RunConfig]:
    with watching(existing) as run:
        yield run


@contextmanager
def watching(settings: list[str]) -> Iterator[RunConfig]:
    """This process joins the cluster for a while."""
    run = compose(settings)
    ray_cluster.connect(run.cluster, namespace="test", cpus=0, store_bytes=0)
    yield run
    ray_cluster.end({})


def by_role(of_node: dict[str, Any]) -> dict[str, Any]:
    """What is known of each node's id -> the same for the node's label, first or second."""
    return {node["Labels"][ROLE]: of_node[node["NodeID"]] for node in ray.nodes() if node["NodeID"] in of_node}


def stored_bytes() -> dict[str, int]:
    """Bytes that have come into each node's object store since the node's start."""
    stats = {}
    for node in ray.nodes():
        answer = node_stats(node["NodeManagerAddress"], node["NodeManagerPort"], include_memory_info=False)
        stats[node["NodeID"]] = answer.store_stats.cumulative_created_bytes
    return by_role(stats)


@pytest.mark.long
def test_a_submitted_run_keeps_its_roles_apart_and_a_second_run_joins(
    nodes: Nodes, existing: list[str], tiny_model: Path, tmp_path: Path
) -> None:
    """Weights cross to the second node once for both engines, which then agree with the learner."""
    run_dir, log = tmp_path / "run", tmp_path / "log"
    with watching(existing):
        before = stored_bytes()
    labels = [f"{role}.labels={{{ROLE}: {name}}}" for role, name in {"learner": "first", "rollout": "second"}.items()]
    settings = [*existing[:-2], *labels, "rollout.engines=2", "steps=2", "evaluate.every=0", f"run_dir={run_dir}"]
    submit = [sys.executable, "-m", "rlframe.cli", "submit", *settings, f"--address={nodes.dashboard}"]
    with log.open("wb") as output:
        job = subprocess.Popen(submit, stdout=output, stderr=output)
    second = compose([*existing, f"reward.labels={{{ROLE}: second}}"])
    with cluster.start(second, tiny_model, ["reward"]) as actors:  # of the same names, at the same time
        home = ray.get(actors.starter.handles["reward-0"].__ray_call__.remote(node_id))
        assert by_role({home: "reward-0"}) == {"second": "reward-0"}
    assert job.wait(240) == 0, log.read_text()[-3000:]
    assert "finished" in log.read_text()

    with watching(existing):
        assert {actor["State"] for actor in all_actors().values()} == {"DEAD"}
        assert places("learner-0") == places("learner-1") == {"first"}
        assert places("rollout-0") == places("rollout-1") == {"second"}
        arrived = stored_bytes()["second"] - before["second"]
        wait_for_free_nodes()
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]
    assert rows[1]["mismatch/abs_mean"] < 1e-3  # sampled with the weights that crossed; float32 on both sides
    checkpoint = run_dir / "checkpoints" / "step_000002"
    assert len(list((checkpoint / "learner").glob("rank_*"))) == 2
    weights = sum(file.stat().st_size for file in (checkpoint / "huggingface").glob("*.safetensors"))
    assert 2 * weights * 0.9 < arrived < 2 * weights * 1.3  # of 2 versions, not 4 for 2 engines


def places(name: str) -> set[str]:
    """The nodes of all actors of a name that the cluster has had."""
    ids = [actor["Address"]["NodeID"] for actor in all_actors().values() if actor["Name"] == name]
    return set(by_role(dict.fromkeys(ids)))


def wait_for_free_nodes() -> None:
    """Until all CPUs are free, which takes a moment after the end of a run."""
    deadline = time.monotonic() + 20
    while [node.get("CPU") for node in available_resources_per_node().values()] != [CPUS, CPUS]:
        assert time.monotonic() < deadline, available_resources_per_node()
        time.sleep(0.2)


def test_a_model_that_a_node_lacks_is_named_with_the_remedy(
    nodes: Nodes, existing: list[str], tiny_model: Path
) -> None:
    model = shutil.copytree(tiny_model, nodes.first_only / "model", dirs_exist_ok=True)
    run = compose([*existing, f"model.path={model}", f"rollout.labels={{{ROLE}: second}}", "rollout.engines=1"])
    remedy = rf"^rollout-0 on 127\.0\.0\.3: model\.path: there is no model at {model} .* storage that they share"
    with pytest.raises(RunFailed, match=remedy), cluster.start(run, model, ["rollout"]):
        pass


def test_ranks_that_do_not_see_the_run_folder_are_named(
    nodes: Nodes, joined: RunConfig, tiny_model: Path, tmp_path: Path
) -> None:
    handle = ray.remote(LearnerRank).options(label_selector={ROLE: "second"}, num_cpus=0)
    rank = handle.remote("learner-0", joined.learner, tiny_model, 1.0, 1, "shared")
    settings = {"micro_batch_tokens": 1, "packing": "shared", "sequence_parallel": 1, "timeout_s": 60, "max_skipped": 1}
    group = LearnerGroup([rank], None, **settings)  # pyright: ignore[reportArgumentType]
    generation = Generation.take(tmp_path / "generations")

    def check(folder: Path) -> None:
        settings = CheckpointConfig(every=1, keep=1, export=False, on_error="stop")
        Checkpoints(settings, folder, group, {}, generation, timeout_s=60, warn=pytest.fail).check_folder()

    check(tmp_path)
    with pytest.raises(
        RunFailed, match=rf"^run_dir: ranks write .* into {nodes.first_only}, and learner-0 on .* share"
    ):
        check(nodes.first_only)


class Dying:
    def __init__(self, name: str) -> None:
        self.name = name

    def die(self) -> None:
        print("my last words", flush=True)
        os._exit(3)


def test_an_actors_last_words_come_from_its_own_node(joined: RunConfig, tmp_path: Path) -> None:
    slot = Slot(kind="rollout", index=7, cpus=0, gpus=0, labels={ROLE: "second"})
    with kept_in(tmp_path / "logs"):
        actor = start_actor(slot, Dying, (), {})
        with pytest.raises(ray.exceptions.RayActorError) as failure:
            ray.get(actor.die.remote(), timeout=60)
        text = describe(failure.value)
    assert text.startswith("rollout-7 failed with ActorDiedError") and text.endswith("  my last words")


def test_labels_that_no_node_has_are_named_at_once_and_at_the_end(existing: list[str], tiny_model: Path) -> None:
    run = compose([*existing, f"reward.labels={{{ROLE}: third}}", "cluster.start_timeout_s=3"])
    warnings: list[str] = []
    with pytest.raises(Stalled) as failure, cluster.join(run, ["reward"]) as joined:
        joined.start(tiny_model, warnings.append)
    [warning] = warnings
    assert warning.startswith("reward-0 needs CPU 1, GPU 0 and the labels {'rlframe.io/role': 'third'} of one node; ")
    for text in (warning, str(failure.value)):
        assert "labels {rlframe.io/role: first}" in text and "labels {rlframe.io/role: second}" in text


def test_a_driver_without_the_token_is_refused_in_words(
    existing: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH")
    refusals = {"token": r"no authentication token was found", "disabled": r"token is missing or incorrect"}
    for mode, reason in refusals.items():
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
        with pytest.raises(RunFailed, match=rf"^cluster\.address=.*refuses.*{reason}.*RAY_AUTH_TOKEN_PATH to a file"):
            ray_cluster.connect(compose(existing).cluster, namespace="test", cpus=0, store_bytes=0)


def test_an_address_without_an_answer_is_refused_within_seconds(existing: list[str]) -> None:
    [port] = free_ports("127.0.0.2", 1)
    run, started = compose([*existing, f"cluster.address=127.0.0.2:{port}"]), time.monotonic()
    with pytest.raises(RunFailed, match=rf"^cluster\.address=127\.0\.0\.2:{port}: nothing answers .* give host:port"):
        ray_cluster.connect(run.cluster, namespace="test", cpus=0, store_bytes=0)
    assert time.monotonic() - started < 15
