"""The order of turns, on sides that note what they are asked to do."""

from __future__ import annotations

import pytest

from rlframe.weights.turns import GIB, SeparateDevices, SharedDevices


class Gpu:
    """Memory of one GPU of 80 GiB, and what happened to it in the order of time."""

    def __init__(self) -> None:
        self.used = {"weights": 10, "kv_cache": 50}  # GiB; a run begins with the engines' turn
        self.events: list[str] = []

    def note(self, event: str) -> None:
        self.events.append(event)
        assert sum(self.used.values()) <= 80, f"{event}: {self.used}"


class Learner:
    """Parameters of 12 GiB, and an optimizer with 40 GiB."""

    def __init__(self, gpu: Gpu) -> None:
        self.gpu = gpu

    def sleep(self, *, keep_parameters: bool) -> int:
        freed = self.gpu.used.pop("optimizer", 0) + (0 if keep_parameters else self.gpu.used.pop("parameters", 0))
        self.gpu.note("learner keeps parameters" if keep_parameters else "learner sleeps")
        return freed * GIB

    def wake(self) -> None:
        self.gpu.used |= {"parameters": 12, "optimizer": 40}
        self.gpu.note("learner wakes")

    def free_bytes(self) -> int:
        return (80 - sum(self.gpu.used.values())) * GIB


class Engines:
    def __init__(self, gpu: Gpu) -> None:
        self.gpu = gpu

    def sleep(self) -> None:
        del self.gpu.used["weights"], self.gpu.used["kv_cache"]
        self.gpu.note("engines sleep")

    def wake(self, part: str) -> None:
        self.gpu.used[part] = {"weights": 10, "kv_cache": 50}[part]
        self.gpu.note(f"engines wake {part}")


@pytest.fixture
def gpu() -> Gpu:
    return Gpu()


@pytest.fixture
def turns(gpu: Gpu) -> SharedDevices:
    return SharedDevices(Learner(gpu), Engines(gpu))


def test_only_weights_are_on_the_gpu_twice_and_only_in_a_handover(turns: SharedDevices, gpu: Gpu) -> None:
    turns.begin_learner()
    with turns.handover():
        assert gpu.used == {"parameters": 12, "weights": 10}
        gpu.note("weights travel")
    assert gpu.used == {"weights": 10, "kv_cache": 50}
    assert gpu.events == [
        "engines sleep",
        "learner wakes",
        "learner keeps parameters",
        "engines wake weights",
        "weights travel",
        "learner sleeps",
        "engines wake kv_cache",
    ]


def test_a_handover_in_the_engines_turn_begins_with_the_learner(turns: SharedDevices, gpu: Gpu) -> None:
    with turns.handover():
        pass
    assert gpu.events[:2] == ["engines sleep", "learner wakes"]


def test_a_turn_that_has_begun_is_not_begun_again(turns: SharedDevices, gpu: Gpu) -> None:
    turns.begin_learner()
    turns.begin_learner()
    assert gpu.events == ["engines sleep", "learner wakes"]


def test_metrics_tell_what_each_side_gave_back_and_the_seconds_once(turns: SharedDevices) -> None:
    with turns.handover():
        pass
    metrics = turns.metrics()
    assert (metrics["memory/learner_freed_gib"], metrics["memory/engines_freed_gib"]) == (52, 60)
    assert metrics["time/turns_s"] > 0
    assert turns.metrics()["time/turns_s"] == 0


def test_new_ranks_find_the_gpu_empty_wherever_the_learner_was_lost(gpu: Gpu, turns: SharedDevices) -> None:
    def lose() -> None:
        for part in ("parameters", "optimizer"):
            gpu.used.pop(part, None)  # with the ranks' processes
        turns.learner_lost()
        assert gpu.used == {}
        gpu.used |= {"parameters": 12, "optimizer": 40}  # of new ranks

    lose()  # in the engines' turn
    turns.begin_learner()  # which has begun
    lose()  # in its own turn
    with pytest.raises(RuntimeError), turns.handover():
        raise RuntimeError("lost")
    lose()
    with turns.handover():
        gpu.note("weights travel")
    assert gpu.used == {"weights": 10, "kv_cache": 50}


def test_sides_with_devices_of_their_own_have_no_turns() -> None:
    turns = SeparateDevices()
    turns.begin_learner()
    with turns.handover():
        assert turns.metrics() == {}
