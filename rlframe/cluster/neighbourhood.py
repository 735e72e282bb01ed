"""`Neighbourhood`: keeps episode workers on nodes of engines, so that a node without engines becomes empty."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from rlframe.cluster.actor import node_of

if TYPE_CHECKING:
    from rlframe.cluster.fleet import Fleet


class Neighbourhood:
    """For the background's event loop.

    Engines rollout-0 on node A and rollout-1 on node B, and the only worker on B: once rollout-1 has left, the worker
    moves to A. The log has what it was doing, and its successor goes on with that.
    """

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self._engines: set[str] = set()  # that served when the workers' nodes were last compared with theirs

    async def look(self) -> None:
        """Moves workers whose node has no engine any more. Looks only after the engines have changed, and serve."""
        fleet, engines = self.fleet, {*self.fleet.seated}
        settled = not fleet.coming and not fleet.leaving and len(engines) == fleet.target
        if settled and engines != self._engines:
            self._engines = engines
            for name in await asyncio.to_thread(self._strays):
                fleet.background.start(self._move(name))

    def _strays(self) -> list[str]:
        """Names of the workers on nodes without engines.

        None where the worker is an object of this process, and in a run without a log, whose groups would be lost.
        """
        episodes, engines = self.fleet.episodes, [*self.fleet.seated.values()]
        if episodes is None or episodes.start_worker is None or not episodes.keeps_log:
            return []
        nodes = set[str]().union(*map(self.fleet.engines.nodes, engines))
        homes = {worker.name: node_of(worker.handle) for worker in list(episodes.workers.values()) if not worker.lost}
        return [name for name, home in homes.items() if nodes and home and not home & nodes]

    async def _move(self, name: str) -> None:
        episodes = self.fleet.episodes
        if episodes is not None and name in episodes.workers:
            await episodes.replace_worker(name, "its node has no engine any more")
