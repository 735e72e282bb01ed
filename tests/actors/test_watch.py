"""Actors are asked what they do; those that do not answer are known, and dead ones are left out."""

from __future__ import annotations

import asyncio
from typing import Any

from ray.exceptions import ActorDiedError, ActorUnavailableError

from rlframe.actors.activity import Doing
from rlframe.actors.in_process import InProcess
from rlframe.actors.watch import ASKED, Watch


class Actor:
    """Answers, never answers, or raises."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked = 0

    async def activity(self) -> Any:
        self.asked += 1
        if self.answer == "never":
            await asyncio.Event().wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def after_rounds(actors: dict[str, Actor], rounds: int) -> Watch:
    async def ask() -> Watch:
        watch = Watch({name: InProcess(actor) for name, actor in actors.items()})
        for _ in range(rounds):
            watch._begin_round()
            await asyncio.sleep(0.01)
        return watch

    return asyncio.run(ask())


def test_an_answer_grows_older_until_the_next_one():
    watch = after_rounds({"learner-0": Actor(Doing("step", 41.0))}, 2)
    watched = watch.actors()["learner-0"]
    assert watched.silent_s(watched.answered_at + 5) == 0
    assert watched.doing_now(watched.answered_at + 5) == ("step", 46.0)


def test_an_actor_that_does_not_answer_is_asked_once_and_is_silent():
    actor = Actor("never")
    watched = after_rounds({"learner-0": actor}, 3).actors()["learner-0"]
    assert actor.asked == 1
    assert watched.silent_s(watched.asked_at + 38) == 38


def test_dead_actors_are_left_out_and_restarting_ones_are_silent():
    dead, restarting = Actor(ActorDiedError()), Actor(ActorUnavailableError("restarts", None))
    actors = after_rounds({"rollout-0": dead, "reward-0": restarting}, 3).actors()
    assert list(actors) == ["reward-0"] and actors["reward-0"].unanswered_since is not None
    assert (dead.asked, restarting.asked) == (1, 3)


def test_an_actor_in_place_of_a_dead_one_is_asked():
    async def ask() -> list[str]:
        handles: dict[str, Any] = {"rollout-0": InProcess(Actor(ActorDiedError()))}
        watch = Watch(handles)
        watch._begin_round()
        await asyncio.sleep(0.01)
        assert watch.actors() == {}
        handles["rollout-0"] = InProcess(Actor(None))
        watch._begin_round()
        await asyncio.sleep(0.01)
        del handles["rollout-0"]
        alive = list(watch.actors())
        watch._begin_round()
        return [*alive, *watch.actors()]

    assert asyncio.run(ask()) == ["rollout-0"]


def test_a_large_run_is_asked_in_turns():
    actors = {f"learner-{rank}": Actor(None) for rank in range(2 * ASKED)}
    after_rounds(actors, 1)
    assert sum(actor.asked for actor in actors.values()) == ASKED
    after_rounds(actors, 2)
    assert [actor.asked for actor in actors.values()] == [2] * ASKED + [1] * ASKED
