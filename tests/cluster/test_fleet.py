"""Engines die, stop, fail and leave while a run goes on: real processes around timed engines."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from rlframe.actors import logs
from rlframe.cli import scale
from rlframe.cluster import drain, fleet, parity
from rlframe.cluster.ray_cluster import send_user_modules
from rlframe.cluster.scaling import Reading
from rlframe.config.run import RunConfig
from rlframe.errors import RunFailed, Stalled
from rlframe.schema import user_modules
from tests.conftest import compose, tiny_overrides
from tests.tiny.fleet import FleetRun, open_fleet
from tests.tiny.ray_local import start_ray

CPUS = 4


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    start_ray(CPUS)
    user_modules.add("benchmarks.async_parts")
    send_user_modules()
    yield
    ray.shutdown()


def settings(model: Path, *overrides: str) -> RunConfig:
    return compose([*tiny_overrides(model), "rollout.cpus=1", "max_staleness=1", *overrides])


def test_a_killed_engine_s_work_goes_on_from_its_tokens(tiny_model: Path, tmp_path: Path) -> None:
    with open_fleet(settings(tiny_model, "rollout.engines=2"), tmp_path) as run:
        run.sync()
        run.order("o0", 400, 400)
        run.order("o1", 400, 400)
        run.until(lambda: {name: each.tokens for name, each in run.followed.engines.items() if each.tokens > 200})
        run.kill("rollout-0")
        assert len(run.groups("o0", "o1")) == 2
        run.until(lambda: run.seated() == ["rollout-1", "rollout-2"])
        assert run.rollouts.replicas["rollout-2"].version == 1
        [warning] = run.warnings
        assert warning.startswith("rollout-0 is broken, and another engine takes its place: ")
        sampled = sum(engine.tokens for engine in run.followed.engines.values())
        assert sampled < 1600 + 2 * 2 * 150  # at most what the dead engine sampled since it told the last tokens


def test_all_engines_at_once_are_replaced(tiny_model: Path, tmp_path: Path) -> None:
    with open_fleet(settings(tiny_model, "rollout.engines=2"), tmp_path) as run:
        run.order("o0", 300, 300)
        run.order("o1", 300, 300)
        run.until(lambda: len(run.followed.engines) == 2)
        run.kill("rollout-0", "rollout-1")
        assert len(run.groups("o0", "o1")) == 2
        run.until(lambda: sorted(run.seated()) == ["rollout-2", "rollout-3"])


def test_a_stopped_engine_is_replaced(tiny_model: Path, tmp_path: Path) -> None:
    with open_fleet(settings(tiny_model, "rollout.engines=2"), tmp_path, silence_s=5.0) as run:
        run.order("o0", 1200, 1200)
        run.order("o1", 1200, 1200)
        run.until(lambda: len(run.followed.engines) == 2)
        run.kill("rollout-1", number=signal.SIGSTOP)
        assert len(run.groups("o0", "o1")) == 2
        run.until(lambda: run.seated() == ["rollout-0", "rollout-2"])


def test_an_engine_killed_in_mid_load_is_replaced_by_one_with_the_version(tiny_model: Path, tmp_path: Path) -> None:
    with open_fleet(settings(tiny_model, "rollout.engines=2", "max_staleness=0"), tmp_path) as run:
        (tmp_path / "rollout-0.slow").touch()
        syncing = run.beside(run.sync)
        run.until(lambda: run.rollouts.replicas["rollout-1"].version == 1)
        assert not syncing.done()
        run.kill("rollout-0")
        assert syncing.result(timeout=60).version == 1
        run.until(lambda: run.seated() == ["rollout-1", "rollout-2"])
        assert run.rollouts.replicas["rollout-2"].version == 1


def test_an_engine_whose_load_raises_is_replaced(tiny_model: Path, tmp_path: Path) -> None:
    with open_fleet(settings(tiny_model, "rollout.engines=2"), tmp_path) as run:
        (tmp_path / "rollout-0.load").touch()
        run.sync()
        run.until(lambda: run.seated() == ["rollout-1", "rollout-2"])
        assert "rollout-0 failed to load version 1" in run.warnings[0] and "no room" in run.warnings[0]
        run.order("o0", 20, 20)
        spans = [completion.versions for group in run.groups("o0") for completion in group.group.completions]
        assert {span.version for versions in spans for span in versions} == {1}


def test_an_engine_that_computes_otherwise_never_serves(tiny_model: Path, tmp_path: Path) -> None:
    with open_fleet(settings(tiny_model, "rollout.engines=2"), tmp_path) as run:
        (tmp_path / "rollout-2.odd").touch()
        run.kill("rollout-0")
        run.order("o0", 20, 20)
        run.order("o1", 20, 20)
        run.until(lambda: run.seated() == ["rollout-1", "rollout-3"])
        assert "rollout-2 computes other log-probabilities than rollout-1 with the same weights" in run.warnings[1]
        assert "rollout-2" not in run.followed.engines


def test_an_engine_that_is_compared_and_does_not_answer_never_serves(tiny_model: Path, tmp_path: Path) -> None:
    with open_fleet(settings(tiny_model, "rollout.engines=2", "cluster.stall_timeout_s=5"), tmp_path) as run:
        (tmp_path / "rollout-2.mute").touch()
        run.kill("rollout-0")
        run.order("o0", 20, 20)
        run.order("o1", 20, 20)
        run.until(lambda: run.seated() == ["rollout-1", "rollout-3"])
        assert "rollout-2 did not tell log-probabilities within 5 s (cluster.stall_timeout_s)" in run.warnings[1]


def test_a_new_engine_is_compared_with_a_peer_that_answers(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity, "PEER_S", 6.0)
    with open_fleet(settings(tiny_model, "rollout.engines={min: 2, max: 3}"), tmp_path) as run:
        run.kill("rollout-0", number=signal.SIGSTOP)  # which has no work, so nobody misses it
        (tmp_path / "rollout-2.odd").touch()
        run.scale(3)
        run.until(lambda: sorted(run.seated()) == ["rollout-0", "rollout-1", "rollout-3"])
        assert "rollout-2 computes other log-probabilities than rollout-1" in run.warnings[0]


def test_losses_without_a_step_end_the_run_with_last_words(tiny_model: Path, tmp_path: Path) -> None:
    config = settings(tiny_model, "rollout.engines=1", "rollout.max_losses=2")
    with logs.kept_in(tmp_path / "logs"), open_fleet(config, tmp_path) as run:
        for number in (1, 2, 3):
            (tmp_path / f"rollout-{number}.start").touch()
        run.kill("rollout-0")
        run.order("o0", 20, 20)
        with pytest.raises(
            RunFailed, match=r"^3 engines were lost and no step was taken between, more than 2"
        ) as error:
            run.until(lambda: False)
        text = str(error.value)
        assert all(f"  rollout-{number}: " in text for number in (0, 1, 2)) and "no such device" in text


def test_an_engine_without_room_is_demand_while_the_least_number_is_there(tiny_model: Path, tmp_path: Path) -> None:
    run_config = settings(
        tiny_model, "rollout.engines={min: 1, max: 3}", f"rollout.cpus={CPUS}", "cluster.start_timeout_s=1"
    )
    with open_fleet(run_config, tmp_path) as run:
        run.scale(2)
        end = time.monotonic() + 3  # three times the bound on a start
        run.until(lambda: time.monotonic() > end)
        assert (run.seated(), list(run.fleet.coming), run.warnings) == (["rollout-0"], ["rollout-1"], [])
        run.scale(1)
        run.until(lambda: list(run.handles) == ["rollout-0"])


def test_too_few_engines_for_too_long_end_the_run(tiny_model: Path, tmp_path: Path) -> None:
    overrides = ["rollout.engines=1", f"rollout.cpus={CPUS}", "cluster.start_timeout_s=5"]
    with open_fleet(settings(tiny_model, *overrides), tmp_path) as run:
        hog = ray.remote(num_cpus=1)(Hog).remote()  # waits for the CPUs of the engine, and takes one
        run.kill("rollout-0")
        run.order("o0", 20, 20)
        problem = r"^rollout\.engines: 0 of at least 1 engines are there for 5 s .* rollout-1 did not start; .* 3 of 4 "
        with pytest.raises(Stalled, match=problem):
            run.until(lambda: False)
        ray.kill(hog)


class Hog:
    pass


def test_a_leaving_engine_gives_everything_back_and_ends(tiny_model: Path, tmp_path: Path) -> None:
    with open_fleet(settings(tiny_model, "rollout.engines={min: 1, max: 2}"), tmp_path) as run:
        run.scale(2)
        run.until(lambda: run.seated() == ["rollout-0", "rollout-1"])
        run.order("o0", 400, 400)
        run.order("o1", 400, 400)
        run.until(lambda: sum(each.tokens > 200 for each in run.followed.engines.values()) == 2)
        leaving = run.handles["rollout-1"]
        run.scale(1)
        assert len(run.groups("o0", "o1")) == 2
        with pytest.raises(ray.exceptions.RayActorError):
            ray.get(leaving.progress.remote(), timeout=60)
        run.until(lambda: "rollout-1" not in run.handles)
        assert run.seated() == ["rollout-0"]
        tokens = {name: each.tokens for name, each in run.followed.engines.items()}
        assert tokens["rollout-0"] + tokens["rollout-1"] <= 1600  # no token is sampled twice


def test_no_episode_worker_is_left_without_an_engine(tiny_model: Path, tmp_path: Path) -> None:
    with open_fleet(settings(tiny_model, "rollout.engines={min: 2, max: 3}"), tmp_path, workers=2) as run:
        run.scale(3)  # the third engine joins the first worker
        run.until(lambda: len(run.seated()) == 3)
        run.scale(2)
        run.until(lambda: [len(worker.engines) for worker in run.episodes.workers.values()] == [1, 1])


def test_a_request_scales_a_run_within_its_range(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").touch()
    with open_fleet(settings(tiny_model, "rollout.engines={min: 1, max: 2}"), tmp_path) as run:
        run.supervisor.open(tmp_path / "requests", lambda: None)
        assert scaled(run, tmp_path, "rollout=3") == 2
        assert (scaled(run, tmp_path, "rollout=2"), run.fleet.target) == (0, 2)
        run.until(lambda: run.seated() == ["rollout-0", "rollout-1"])
        assert (scaled(run, tmp_path, "rollout=1"), run.seated()) == (0, ["rollout-0"])
        run.supervisor.close()
        assert scaled(run, tmp_path, "rollout=2") == 2


def scaled(run: FleetRun, run_dir: Path, wish: str) -> int:
    """The exit code of `rlframe scale`."""
    command = run.beside(lambda: scale.main([str(run_dir), wish]))
    run.until(command.done)
    return command.result()


def test_a_starved_run_grows_and_a_flooded_run_shrinks(tiny_model: Path, tmp_path: Path) -> None:
    now = {"learner_waits": True, "slots_used": 1.0, "step": 0}

    def read() -> Reading:
        now["step"] += 1  # a step in each look of the supervisor
        return Reading(**now)

    with open_fleet(settings(tiny_model, "rollout.engines={min: 1, max: 2}"), tmp_path) as run:
        run.supervisor.open(tmp_path / "requests", read)
        run.until(lambda: run.seated() == ["rollout-0", "rollout-1"])
        now |= {"learner_waits": False, "slots_used": 0.3}
        run.until(lambda: run.seated() == ["rollout-0"])


def test_a_checkpoint_is_due_once_when_the_driver_s_node_drains(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_fleet(settings(tiny_model, "rollout.engines=1", "checkpoint.every=5"), tmp_path) as run:
        node = ray.get_runtime_context().get_node_id()
        monkeypatch.setattr(drain, "draining_nodes", lambda: {node})
        run.until(run.supervisor.checkpoint_due.is_set)
        run.supervisor.checkpoint_due.clear()
        run.until(lambda: list(run.fleet.coming) == ["rollout-1"] or run.seated() == ["rollout-1"])
        assert not run.supervisor.checkpoint_due.is_set()
        assert "rollout-0 leaves: its node leaves the cluster" in run.warnings


def test_an_engine_that_hangs_in_its_start_is_replaced(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "rollout-1.hang").touch()
    engines = "rollout.engines={min: 1, max: 2}"
    with open_fleet(settings(tiny_model, engines, "cluster.start_timeout_s=5"), tmp_path) as run:
        run.scale(2)
        run.until(lambda: list(run.fleet.coming) == ["rollout-1"])
        run.engines.run = settings(tiny_model, engines)  # the next engine may take longer
        run.until(lambda: len(run.seated()) == 2)
        assert "rollout-1" not in run.seated()
        assert "rollout-1 has room, and did not start within 5 s (cluster.start_timeout_s)" in run.warnings[0]


def test_a_worker_that_lost_its_engine_gets_another_worker_s(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "BARE_S", 0.5)
    with open_fleet(settings(tiny_model, "rollout.engines={min: 2, max: 3}"), tmp_path, workers=2) as run:
        run.scale(3)
        run.until(lambda: [len(worker.engines) for worker in run.episodes.workers.values()] == [2, 1])
        hog = ray.remote(num_cpus=2)(Hog).remote()  # takes the CPUs of the next engine
        run.order("o0", 300, 300)
        run.order("o1", 300, 300)
        run.order("o2", 300, 300)
        run.until(lambda: len(run.followed.engines) == 3)
        run.kill("rollout-1")
        shares = [["rollout-0"], ["rollout-2"]]
        run.until(lambda: [list(worker.engines) for worker in run.episodes.workers.values()] == shares)
        assert len(run.groups("o0", "o1", "o2")) == 3
        ray.kill(hog)
