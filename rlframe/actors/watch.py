"""`Watch`: asks a run's actors what they do, again and again, and knows which of them do not answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass

from ray.exceptions import ActorUnavailableError, RayActorError, RayError

from rlframe.actors.activity import Doing
from rlframe.actors.replicas import Handle
from rlframe.actors.tasks import Tasks

EVERY_S = 2.0  # between two rounds of questions
ASKED = 100  # actors in a round, at most: a question costs the driver 0.3 ms, so a large run is asked in turns


@dataclass(slots=True, kw_only=True, eq=False)
class Watched:
    """An actor and its answers. Times are by time.monotonic."""

    handle: Handle
    asked_at: float = 0.0  # the last question
    unanswered_since: float | None = None  # the first question without an answer; None: the last one was answered
    doing: Doing | None = None  # by the last answer
    answered_at: float = 0.0
    asking: bool = False  # at the moment
    dead: bool = False

    def silent_s(self, now: float) -> float:
        """Seconds for which a question waits for its answer."""
        return 0.0 if self.unanswered_since is None else now - self.unanswered_since

    def doing_now(self, now: float) -> Doing | None:
        """The last answer, with the seconds since."""
        return self.doing and Doing(self.doing.text, self.doing.seconds + now - self.answered_at)


class Watch:
    """Runs on one event loop; any thread may read `actors`."""

    def __init__(self, handles: Mapping[str, Handle]) -> None:
        """`handles`: name -> actor, which change while actors are replaced. All have the method `activity`."""
        self.handles = handles
        self._watched: dict[str, Watched] = {}
        self._questions = Tasks(lambda error: None)  # `_ask` has noted the error

    def actors(self) -> dict[str, Watched]:
        """Name -> actor, of actors that are not dead."""
        return {name: watched for name, watched in list(self._watched.items()) if not watched.dead}

    async def follow(self) -> None:
        """Asks for ever."""
        while True:
            self._begin_round()
            await asyncio.sleep(EVERY_S)

    def _begin_round(self) -> None:
        for name, handle in list(self.handles.items()):
            if name not in self._watched or self._watched[name].handle is not handle:
                self._watched[name] = Watched(handle=handle)
        for name in self._watched.keys() - self.handles.keys():
            del self._watched[name]
        idle = [watched for watched in self.actors().values() if not watched.asking]
        for watched in sorted(idle, key=lambda each: each.asked_at)[:ASKED]:
            watched.asked_at = time.monotonic()
            watched.asking = True
            self._questions.start(self._ask(watched))

    async def _ask(self, watched: Watched) -> None:
        if watched.unanswered_since is None:
            watched.unanswered_since = watched.asked_at
        try:
            watched.doing = await watched.handle.activity.remote()
        except RayActorError as error:
            watched.dead = not isinstance(error, ActorUnavailableError)  # Ray restarts reward workers
        except RayError:
            pass  # asked again in the next round
        else:
            watched.answered_at, watched.unanswered_since = time.monotonic(), None
        finally:
            watched.asking = False
