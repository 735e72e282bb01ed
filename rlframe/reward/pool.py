"""`RewardPool`: verdicts on completions and rewards of groups, from worker actors."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayActorError

from rlframe.actors.pings import Pings, Silent
from rlframe.actors.replicas import Replica, Replicas, ReplicasDown, ReplicaState
from rlframe.actors.table import is_alive
from rlframe.errors import Hung
from rlframe.reward.base import Reward
from rlframe.reward.composition import combine, speaking
from rlframe.reward.failures import Failures
from rlframe.types import Completion, Prompt, RolloutGroup, ScoredGroup, Verdict

FACTS_S = 10.0  # for workers to answer: they may be busy, and a metric is not worth a longer wait
RETRIED = "reward/retried"
REPLACED = "reward/workers_replaced"
BACK = "reward/workers_back"
RESTART_S = 300.0  # for a dead worker to start again, packages and models included


class RewardPool:
    """Typed handle over reward workers, which `cluster/` starts and ends. For use in one event loop.

    A failed verdict is requested again, up to `attempts` times in all. After the last attempt the verdict stays
    failed, and the completion is excluded from baseline and loss.
    """

    def __init__(
        self, terms: Mapping[str, Reward], workers: list[RewardWorkers], *, attempts: int, max_failed_share: float
    ) -> None:
        """`workers`: each term has exactly one entry that holds the term."""
        self.terms = terms
        self.workers = workers
        self.attempts = attempts
        self.failures = Failures(max_failed_share)
        self.retried = 0  # verdicts that were requested again
        self._facts: dict[str, float] = {}

    @property
    def in_flight(self) -> dict[str, int]:
        """Calls at each worker, by name."""
        return {replica.name: replica.calls for workers in self.workers for replica in workers.replicas}

    def judges(self, task: str) -> list[str]:
        """Names of the rewards that look at one completion and speak on the task."""
        return [name for name, term in speaking(self.terms, task).items() if not term.looks_at_group()]

    async def score(self, prompt: Prompt, completion: Completion) -> dict[str, Verdict]:
        """Reward name -> verdict, of `judges` of the prompt's task.

        Raises RewardsFail when too many verdicts have failed, and ReplicasDown.
        """
        verdicts = await self._verdicts(self.judges(prompt.task), "score", 1, prompt, completion)
        return {name: verdict for name, (verdict,) in verdicts.items()}

    async def score_group(self, group: RolloutGroup, verdicts: list[dict[str, Verdict]]) -> ScoredGroup:
        """The group with its rewards. `verdicts` [G] are the results of `score`; rewards on groups speak now."""
        terms = speaking(self.terms, group.prompt.task)
        by_name = {name: [verdict[name] for verdict in verdicts] for name in self.judges(group.prompt.task)}
        if names := [name for name, term in terms.items() if term.looks_at_group()]:
            by_name |= await self._verdicts(names, "score_group", len(group.completions), group, by_name)
        return combine(group, {name: by_name[name] for name in terms}, self.terms)

    async def ask_facts(self) -> None:
        """Asks a serving worker of each term for facts, for example the isolation level of a sandbox, for `metrics`.

        A worker that dies or does not answer in time is left out.
        """
        serving = [replica for workers in self.workers for replica in workers.replicas.serving()[:1]]
        answers = await asyncio.gather(
            *[asyncio.wait_for(replica.handle.facts.remote(), FACTS_S) for replica in serving], return_exceptions=True
        )
        for answer in answers:
            if isinstance(answer, dict):
                self._facts |= {f"reward/{name}": value for name, value in answer.items()}

    def metrics(self) -> dict[str, float]:
        """Since the start: verdicts that were requested again, workers that were restarted, and that serve again.

        And the facts.
        """
        restarted = sum(workers.restarted for workers in self.workers)
        back = sum(workers.back for workers in self.workers)
        counts = {RETRIED: self.retried, REPLACED: restarted, BACK: back}
        return self._facts | {name: float(count) for name, count in counts.items()}

    async def _verdicts(self, names: list[str], method: str, count: int, *arguments: Any) -> dict[str, list[Verdict]]:
        """Reward name -> [count] verdicts, in the order of `names`."""
        shares = [(workers, [name for name in names if name in workers.names]) for workers in self.workers]
        calls = [self._attempt(workers, share, method, count, *arguments) for workers, share in shares if share]
        # A single call, as nearly always, needs no task of its own.
        answers = [await calls[0]] if len(calls) == 1 else await asyncio.gather(*calls)
        verdicts = {name: row for rows in answers for name, row in rows.items()}
        for name, row in verdicts.items():
            for verdict in row:
                self.failures.note(name, verdict)
        return {name: verdicts[name] for name in names}

    async def _attempt(
        self, workers: RewardWorkers, names: list[str], method: str, count: int, *arguments: Any
    ) -> dict[str, list[Verdict]]:
        """Verdicts of rewards with the same workers; failed verdicts are requested again."""
        verdicts: dict[str, list[Verdict]] = {}
        failed = names
        for attempt in range(self.attempts):
            self.retried += len(failed) if attempt else 0
            try:
                verdicts |= await workers.call(method, failed, *arguments)
            except (RayActorError, Silent) as error:
                detail = f"its workers died or stopped: {error}"
                verdict = Verdict(score=None, status="failed", seconds=0.0, detail=detail)
                return verdicts | {name: [verdict] * count for name in failed}
            failed = [name for name in failed if any(_may_succeed(verdict) for verdict in verdicts[name])]
            if not failed:
                break
        return verdicts


class RewardWorkers:
    """Replicas of a reward worker; a call goes to the least busy. A worker restarts while the rest serves.

    Reasons to restart: the process is dead; a reward holds the worker's thread for ever (Hung); the worker does not
    answer, because its process is stopped or an `async` reward blocks its event loop (Silent). Calls of a worker that
    died or stopped are asked again elsewhere.

    At most `max_in_flight` calls wait or run at each worker. Further calls wait here, so that a slow reward holds
    back the callers and does not fill the workers' memory. For use in one event loop.
    """

    def __init__(
        self,
        names: list[str],
        replicas: Replicas,
        *,
        max_in_flight: int,
        max_deaths: int,
        silence_s: float | None = None,
        restart_s: float = RESTART_S,
    ) -> None:
        """`names`: of the rewards that every worker holds. `replicas`: actors that Ray restarts. `max_deaths`: a call
        is given up after that many workers have died or stopped during the call. `silence_s`: seconds in which a
        worker must answer a ping; None: workers of this process, which get no pings. `restart_s`: for a dead worker to
        answer again.
        """
        if not len(replicas) or max_in_flight < 1:
            raise ValueError(f"a reward needs workers and calls in flight, not {len(replicas)} and {max_in_flight}")
        self.names = names
        self.replicas = replicas
        self.max_deaths = max_deaths
        self.restart_s = restart_s
        self._pings = {
            replica.name: Pings(replica.name, replica.handle.ping.remote, silence_s)
            for replica in replicas
            if silence_s is not None
        }
        self.restarted = 0  # workers, since the start
        self.back = 0  # of these, likewise: they serve again
        self._slots = asyncio.Semaphore(len(replicas) * max_in_flight)
        self._restarts: set[asyncio.Task[None]] = set()
        self._restart_error: Exception | None = None  # of the last worker that did not start again

    async def call(self, method: str, *arguments: Any) -> Any:
        """The result of a worker's `method`; after the death or silence of that worker, of another worker.

        Raises ReplicasDown, and ray.exceptions.RayActorError or Silent once `max_deaths` workers have died or stopped
        during the call.
        """
        deaths = 0
        async with self._slots:
            while True:
                replica = await self._assign()
                try:
                    answer = getattr(replica.handle, method).remote(*arguments)
                    pings = self._pings.get(replica.name)
                    return await (pings.result(answer) if pings else answer)
                except Hung as error:  # in an earlier call: this call has not begun
                    self._restart(replica, error)
                except (RayActorError, Silent) as error:
                    self._restart(replica, error)
                    deaths += 1
                    if deaths == self.max_deaths:
                        raise
                finally:
                    self.replicas.release(replica)

    async def _assign(self) -> Replica:
        """The least busy worker, after a wait while all workers start again. Raises ReplicasDown if none does."""
        try:
            while (replica := self.replicas.assign()) is None:
                await asyncio.wait(list(self._restarts), return_when=asyncio.FIRST_COMPLETED)
        except ReplicasDown as error:
            raise ReplicasDown(f"{error}; the last one did not start again: {self._restart_error}") from error
        return replica

    def _restart(self, replica: Replica, error: Exception) -> None:
        """Gives a worker no calls until Ray has restarted the process. Further failed calls change nothing.

        `error`: of a call, by which several pools may know that the process must end.
        """
        if replica.state != ReplicaState.SERVING:
            return
        replica.state = ReplicaState.STARTING
        self.restarted += 1
        task = asyncio.get_running_loop().create_task(self._await_restart(replica, error))
        self._restarts.add(task)
        task.add_done_callback(self._restarts.discard)

    async def _await_restart(self, replica: Replica, error: Exception) -> None:
        """Waits until the worker answers again; a worker that does not is dead."""
        try:
            async with asyncio.timeout(self.restart_s):
                await _end(replica, error)
                while not await _answers(replica):
                    await asyncio.sleep(0.2)
            self.replicas.serve(replica)
            self.back += 1
        except Exception as failure:  # the calls that wait for a worker raise it, once no worker is left
            self._restart_error = failure
            replica.state = ReplicaState.DEAD


def _may_succeed(verdict: Verdict) -> bool:
    """True for a failed verdict that another request may better."""
    return verdict.status == "failed" and not verdict.final


async def _end(replica: Replica, error: Exception) -> None:
    """Ends a worker's process, unless the error says that it is dead. Ray then starts another."""
    if isinstance(error, Hung):
        with suppress(RayActorError):
            await replica.handle.end.remote(error.process)
    elif isinstance(error, Silent):  # it would not hear a call
        await asyncio.to_thread(_kill, replica)


def _kill(replica: Replica) -> None:
    """Kills a worker's process, unless Ray is starting a new one: another pool may have found the worker silent too."""
    if is_alive(replica.handle):
        ray.kill(replica.handle, no_restart=False)


async def _answers(replica: Replica) -> bool:
    """False while Ray still starts the worker. Raises the error of a worker that cannot start."""
    try:
        await replica.handle.facts.remote()
    except ActorUnavailableError:
        return False
    return True


def merge_metrics(pools: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The metrics of several pools over the same workers.

    Retried requests add up, because each pool counts its own. Several pools may count the same restart, and facts are
    equal in all pools: their largest value counts.
    """
    merged: dict[str, float] = {}
    for metrics in pools:
        for name, value in metrics.items():
            merged[name] = merged.get(name, 0.0) + value if name == RETRIED else max(merged.get(name, value), value)
    return merged
