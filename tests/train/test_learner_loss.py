"""A run whose learner dies, in each phase of a step, ends as the run without a death, to the last bit."""

from __future__ import annotations

import io
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

import numpy as np
import pytest
import ray
from rich.console import Console as Terminal

from rlframe.cluster.placement import engine_slot, rank_slot
from rlframe.cluster.ray_cluster import send_user_modules
from rlframe.config.run import RunConfig
from rlframe.errors import RunFailed
from rlframe.record.console import Console
from rlframe.record.directory import RunDir
from rlframe.record.generation import Generation
from rlframe.record.manifest import MANIFEST
from rlframe.train.cadence import Cadence
from rlframe.train.checkpoint import Checkpoints
from rlframe.train.context import Context
from rlframe.train.evaluate import Evaluation
from rlframe.train.health import Health
from rlframe.train.loop import run_steps, take_step
from rlframe.train.mismatch import MismatchGate
from rlframe.train.recovery import Recovery
from rlframe.train.signals import StopSignals
from rlframe.training import GroupRecord
from tests.conftest import compose, tiny_overrides
from tests.tiny.groups import make_group, recorded
from tests.tiny.mortal import MemoryFeed, MortalStarter
from tests.tiny.ray_local import start_ray

STEPS = 8
SETTINGS = [
    f"steps={STEPS}",
    "checkpoint.every=3",
    "checkpoint.export=false",
    "evaluate.every=0",
    "kl=reference",
    "kl.refresh_every=4",
    "learner.minibatches=2",
    "mismatch.action=correct",  # from the first step with 64 tokens on, which is step 5
    "correction=tis",
    "rollout.engines=1",
]


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    # A run keeps the reservation of its ranks until its driver ends: 2 CPUs for each of the runs below.
    start_ray(16, store_mib=200)
    send_user_modules()
    yield
    ray.shutdown()


def batches() -> list[list[GroupRecord]]:
    """For each step two groups of two completions. The first four steps have too few tokens for the mismatch gate."""
    rng = np.random.default_rng(5)
    return [
        [
            recorded(
                make_group(
                    rewards=[float(reward) for reward in rng.permutation([0.0, 1.0])],
                    lengths=[int(length) for length in rng.integers(*((4, 15) if step < 4 else (40, 60)), 2)],
                    name=f"o{2 * step + index}",
                    version=step,
                )
            )
            for index in range(2)
        ]
        for step in range(STEPS)
    ]


class Ended(NamedTuple):
    """A run's files and its engine's loads."""

    manifests: dict[str, Any]  # of each checkpoint that is left
    rows: list[dict[str, float]]
    loads: list[tuple[int, str]]
    written: list[int]
    output: str


def run_with(tiny_model: Path, folder: Path, orders: dict[str, int], *changes: str) -> Ended:
    """A run whose ranks get `orders` ("learner-1.backward.3" -> signal)."""
    run = compose([*tiny_overrides(tiny_model), *SETTINGS, f"run_dir={folder / 'run'}", *changes])
    (folder / "orders").mkdir(parents=True, exist_ok=True)
    for name, number in orders.items():
        (folder / "orders" / name).write_text(str(int(number)))
    starter = MortalStarter(run, tiny_model, "test", "shared", print)
    starter.orders = folder / "orders"
    slots = {
        "learner": [rank_slot(run.learner, index) for index in range(2)],
        "rollout": [engine_slot(run.rollout, 0, 0)],
    }
    actors = starter.start(slots)
    try:
        terminal = io.StringIO()
        with Console(STEPS, "brevity", Terminal(file=terminal, width=250)) as console:
            ctx = context(run, actors, console)
            with ctx.checkpoints:
                run_steps(run, ctx, take_step)
        loads = ray.get(starter.handles["rollout-0"].loaded.remote())
        assert not list((folder / "orders").iterdir())
        return Ended(
            manifests={
                checkpoint.name: json.loads((checkpoint / MANIFEST).read_text())
                for checkpoint in sorted(ctx.files.checkpoints.glob("step_*"))
            },
            rows=[json.loads(line) for line in ctx.files.metrics.read_text().splitlines()],
            loads=loads,
            written=ctx.feed.written,
            output=terminal.getvalue(),
        )
    finally:
        actors.background.close()
        for handle in starter.handles.values():
            ray.kill(handle)


def context(run: RunConfig, actors: Any, console: Console) -> Context:
    """The real parts of a run around a feed from memory."""
    files = RunDir(Path(run.run_dir))
    files.create()
    feed: Any = MemoryFeed(batches(), actors.background)
    gate = MismatchGate(run.mismatch, list(run.correction.values()), actors.learner, console)
    generation = Generation.take(files.generations)
    parts = {"feed": feed, "mismatch": gate}
    limits = {"timeout_s": run.cluster.stall_timeout_s, "warn": console.warn}
    checkpoints = Checkpoints(run.checkpoint, files.checkpoints, actors.learner, parts, generation, **limits)
    recovery = Recovery(
        run.learner.max_losses, actors.starter, actors.learner, checkpoints, actors.weights, feed, gate, console
    )
    return Context(
        run=run,
        files=files,
        generation=generation,
        console=console,
        signals=StopSignals(),
        feed=feed,
        learner=actors.learner,
        weights=actors.weights,
        turns=actors.weights.turns,
        gate=gate,
        evaluation=Evaluation(run, {name: [] for name in run.held_out_sets}, feed, files),
        checkpoints=checkpoints,
        recovery=recovery,
        cadence=Cadence(run.checkpoint.every),
        checkpoint_due=Event(),
        health=Health(),
    )


def learned(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    """The metrics that are neither seconds nor shares of seconds."""
    timed = ("time/", "per_s", "seconds", "stall_s", "idle", "weights/")
    return [{key: value for key, value in row.items() if not any(word in key for word in timed)} for row in rows]


@pytest.fixture(scope="module")
def undisturbed(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    return run_with(tiny_model, tmp_path_factory.mktemp("undisturbed"), {})


def check_equal(ended: Ended, undisturbed: Ended) -> None:
    assert learned(ended.rows) == learned(undisturbed.rows)
    assert ended.manifests[f"step_{STEPS:06d}"] == undisturbed.manifests[f"step_{STEPS:06d}"]
    assert ended.written == undisturbed.written == list(range(1, STEPS + 1))
    assert ended.loads == undisturbed.loads  # each version once


def test_the_run_to_compare_with_learns_and_corrects_from_step_6_on(undisturbed: Ended) -> None:
    assert [row["step"] for row in undisturbed.rows] == list(range(1, STEPS + 1))
    assert all(row["learner/grad_norm"] > 0 for row in undisturbed.rows)
    corrected = ["correction/weight_mean" in row for row in undisturbed.rows]
    assert corrected == [False] * 5 + [True] * 3
    assert list(undisturbed.manifests) == ["step_000006", "step_000008"]
    assert [version for version, _ in undisturbed.loads] == list(range(1, STEPS + 1))
    assert len({values for _, values in undisturbed.loads}) == STEPS


@pytest.mark.parametrize(
    "places",
    [
        # After step 3 new ranks begin with the base model; at step 7 the mismatch gate has switched the correction on.
        ["0.checkpoint.3", "1.forward.7"],
        pytest.param(
            # The first new ranks begin with the base model.
            [
                "1.forward.1",
                "0.backward.2",
                "1.reduction.3",
                "0.checkpoint.3",
                "0.optimizer.5",
                "1.publish.6",
                "1.forward.7",
            ],
            marks=pytest.mark.long,
        ),
    ],
    ids=["two", "each"],
)
def test_ranks_killed_in_each_phase_leave_the_same_run(
    undisturbed: Ended, tiny_model: Path, tmp_path: Path, places: list[str]
) -> None:
    ended = run_with(tiny_model, tmp_path, {f"learner-{place}": signal.SIGKILL for place in places})
    check_equal(ended, undisturbed)
    assert ended.output.count("the learner is lost after step") == len(places)


@pytest.mark.long
def test_a_stopped_rank_is_found_and_replaced(undisturbed: Ended, tiny_model: Path, tmp_path: Path) -> None:
    ended = run_with(tiny_model, tmp_path, {"learner-1.backward.4": signal.SIGSTOP}, "cluster.stall_timeout_s=40")
    check_equal(ended, undisturbed)
    assert "did not take step 4 within 40 s (cluster.stall_timeout_s)" in ended.output


@pytest.mark.long
def test_a_new_rank_that_stops_at_its_start_is_replaced(undisturbed: Ended, tiny_model: Path, tmp_path: Path) -> None:
    orders: dict[str, int] = {"learner-0.forward.2": signal.SIGKILL, "learner-1.connect.0": signal.SIGSTOP}
    ended = run_with(tiny_model, tmp_path, orders, "cluster.stall_timeout_s=40")
    check_equal(ended, undisturbed)
    assert ended.output.count("the learner is lost after step 1, ") == 2


@pytest.mark.long
def test_ranks_killed_while_a_run_is_restored_leave_it_whole(
    undisturbed: Ended, tiny_model: Path, tmp_path: Path
) -> None:
    run_with(tiny_model, tmp_path, {}, "steps=3")
    orders: dict[str, int] = {"learner-0.load.0": signal.SIGKILL, "learner-1.publish.0": signal.SIGKILL}
    ended = run_with(tiny_model, tmp_path, orders, f"resume={tmp_path / 'run'}")
    assert learned(ended.rows) == learned(undisturbed.rows)
    assert ended.manifests == undisturbed.manifests
    assert ended.output.count("the learner is lost after step") == len(orders)


@pytest.mark.long
def test_a_learner_that_dies_at_each_try_ends_the_run(tiny_model: Path, tmp_path: Path) -> None:
    orders = {"learner-1.forward.2": signal.SIGKILL, "learner-0.optimizer.2": signal.SIGKILL}
    reasons = (
        r"(?s)^losses of the learner after step 1, .*: 2, .* survives 1 .*\nloss 1: learner-1 .*\nloss 2: learner-0 "
    )
    with pytest.raises(RunFailed, match=reasons):
        run_with(tiny_model, tmp_path, orders, "learner.max_losses=1")
