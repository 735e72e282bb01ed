"""An engine over two nodes with a GPU each, by vLLM's Ray executor. The GPUs are names: workers compute on CPUs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import ray

from rlframe.cluster import start as cluster
from rlframe.config.run import RunConfig
from tests.conftest import compose, tiny_overrides
from tests.tiny.nodes import Nodes, two_nodes
from tests.weights.test_sync import disagreement, step, sync

ROOT = Path(__file__).parents[2]
PLATFORM = ROOT / "tests" / "tiny" / "cpu_workers_in_ray"  # vLLM's CPU platform as a plugin, where Ray counts GPUs


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with TemporaryDirectory(prefix="ray") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{ROOT}:{PLATFORM}")
        with two_nodes(Path(folder), gpus=1) as nodes:
            for name, value in nodes.environment.items():
                patch.setenv(name, value)
            yield nodes


@pytest.fixture(scope="module")
def run(nodes: Nodes, tiny_model: Path) -> RunConfig:
    """A pipeline of two stages, one on each node."""
    address = ["cluster=existing", f"cluster.address={nodes.address}"]
    sizes = ["rollout.gpus=2", "rollout.pipeline_parallel=2"]
    return compose([*tiny_overrides(tiny_model), *address, *sizes, "learner.ranks=1", "learner.lr=0.02"])


@pytest.fixture(scope="module")
def actors(run: RunConfig) -> Iterator[cluster.Actors]:
    with cluster.start(run, Path(run.model.path)) as actors:
        yield actors


@pytest.mark.long
def test_stages_on_two_nodes_sample_and_take_weights(actors: cluster.Actors, run: RunConfig) -> None:
    workers = [actor for actor in ray._private.state.actors().values() if actor["ActorClassName"] == "RayWorkerProc"]
    assert len({worker["Address"]["NodeID"] for worker in workers}) == 2
    assert disagreement(actors, run) < 2e-3
    for _ in range(3):
        step(actors, run)
    assert disagreement(actors, run) > 0.5
    assert not sync(actors).repaired
    assert disagreement(actors, run) < 2e-3
