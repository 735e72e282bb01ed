"""`RewardPool`: verdicts on completions, and rewards of groups, from worker actors."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import ray
from ray.exceptions import RayActorError

from rlframe.actors.lane import Lane
from rlframe.reward.base import Reward
from rlframe.reward.composition import combine, speaking
from rlframe.reward.failures import Failures
from rlframe.types import Completion, Prompt, RolloutGroup, ScoredGroup, Verdict

CLOSE_S = 10.0  # for workers to give back what they hold; then cluster.py ends them anyway


class RewardPool:
    """Typed handle over the lanes of reward workers, which `cluster.py` makes and ends. For use in one event loop.

    A verdict that failed is asked for again, up to `attempts` times in all; then it stays failed, and its completion is
    left out of baseline and loss.
    """

    def __init__(
        self, terms: Mapping[str, Reward], lanes: list[Lane], *, attempts: int, max_failed_share: float
    ) -> None:
        """`lanes`: every term is held by one of them."""
        self.terms = terms
        self.lanes = lanes
        self.attempts = attempts
        self.failures = Failures(max_failed_share)
        self.retried = 0  # verdicts that were asked for again

    @property
    def in_flight(self) -> list[int]:
        """Calls at each worker."""
        return [worker.calls for lane in self.lanes for worker in lane.workers]

    async def score(self, prompt: Prompt, completion: Completion) -> dict[str, Verdict]:
        """Reward name -> its verdict, of the rewards that look at one completion and speak on the prompt's task.

        Raises RewardsFail when too many have failed, and LaneDown.
        """
        names = [name for name, term in speaking(self.terms, prompt.task).items() if not term.looks_at_group()]
        rows = await self._ask(names, "score", 1, prompt, completion)
        return {name: row[0] for name, row in rows.items()}

    async def score_group(self, group: RolloutGroup, verdicts: list[dict[str, Verdict]]) -> ScoredGroup:
        """The group with its rewards; `verdicts` [G] are what `score` gave. Rewards that look at groups speak now."""
        terms = speaking(self.terms, group.prompt.task)
        single = {name: [of_one[name] for of_one in verdicts] for name in terms if name in verdicts[0]}
        names = [name for name, term in terms.items() if term.looks_at_group()]
        rows = await self._ask(names, "score_group", len(group.completions), group, single) if names else {}
        both = single | rows
        return combine(group, {name: both[name] for name in terms}, self.terms)

    @cached_property
    def facts(self) -> dict[str, float]:
        """What the first worker of each lane says of its rewards, such as the isolation that their sandbox reached."""
        told = ray.get([lane.workers[0].actor.facts.remote() for lane in self.lanes])
        return {f"reward/{name}": value for facts in told for name, value in facts.items()}

    def metrics(self) -> dict[str, float]:
        """Verdicts that were asked for again and workers that were replaced, since the start; and the facts."""
        replaced = sum(lane.replaced for lane in self.lanes)
        return self.facts | {"reward/retried": float(self.retried), "reward/workers_replaced": float(replaced)}

    async def _ask(self, names: list[str], method: str, count: int, *arguments: Any) -> dict[str, list[Verdict]]:
        """Reward name -> its [count] verdicts, in the order of `names`."""
        shares = [(lane, [name for name in names if name in lane.names]) for lane in self.lanes]
        asked = [self._settle(lane, share, method, count, *arguments) for lane, share in shares if share]
        settled = {name: row for rows in await asyncio.gather(*asked) for name, row in rows.items()}
        for name, row in settled.items():
            for verdict in row:
                self.failures.note(name, verdict)
        return {name: settled[name] for name in names}

    async def _settle(
        self, lane: Lane, names: list[str], method: str, count: int, *arguments: Any
    ) -> dict[str, list[Verdict]]:
        """One lane's verdicts, those that failed asked for again."""
        settled: dict[str, list[Verdict]] = {}
        left = names
        for attempt in range(self.attempts):
            self.retried += len(left) if attempt else 0
            try:
                settled |= await lane.call(method, left, *arguments)
            except RayActorError as error:
                return settled | {name: [_died(error)] * count for name in left}
            left = [name for name in left if any(verdict.status == "failed" for verdict in settled[name])]
            if not left:
                break
        return settled

    def close(self) -> None:
        """Closes every worker's rewards; a dead or stuck worker is not waited for beyond CLOSE_S."""
        closed = [worker.actor.close.remote() for lane in self.lanes for worker in lane.workers]
        ray.wait(closed, num_returns=len(closed), timeout=CLOSE_S)


def _died(error: Exception) -> Verdict:
    return Verdict(score=None, status="failed", seconds=0.0, detail=f"its workers died: {error}")
