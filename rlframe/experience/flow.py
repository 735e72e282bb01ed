"""`RolloutFeed`: samples and scores the ledger's prompts on an event loop, beside the training thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any

from rlframe.cluster.scaling import Reading
from rlframe.errors import RunFailed
from rlframe.experience.journal import NoLog
from rlframe.experience.scoring import Scorer
from rlframe.rollout.messages import EpisodeReport, Finished, Order
from rlframe.types import Attempt, Prompt, Sampling

if TYPE_CHECKING:
    from rlframe.actors.background import Background
    from rlframe.experience.errands import Errands
    from rlframe.experience.fold import Entry
    from rlframe.experience.journal import Journal
    from rlframe.experience.ledger import Ledger
    from rlframe.experience.resampling import Resampling
    from rlframe.prompts.stream import PromptStream
    from rlframe.rollout.episode_pool import EpisodePool
    from rlframe.rollout.pool import RolloutPool
    from rlframe.training import GroupRecord

NAMED_PROMPTS = 8  # that a stall message lists


class RolloutFeed(Scorer):
    """Scored groups for the loop. Sampling and scoring go on while the driver waits for the learner.

    On-policy, prompts are admitted by `take` alone, all of a step at once. Else a prompt is admitted whenever an
    episode worker has room and the ledger allows it: at every report, and after a take.

    With a journal, `take` first hands out batches that a learner at an older version has to train on again. A driver
    that has just started samples nothing before that.
    """

    def __init__(
        self,
        ledger: Ledger,
        stream: PromptStream,
        rollouts: RolloutPool,
        episodes: EpisodePool,
        background: Background,
        sampling: Sampling,
        resampling: Resampling,
        *,
        slots: int,
        warn: Callable[[str], None],
        errands: Errands | None = None,
        journal: Journal | None = None,
    ) -> None:
        """`rollouts` tells the policy versions. `warn` gets lines for the console.

        `journal`: of the ledger; None: a run without checkpoints, which cannot go on after a death.
        """
        super().__init__(episodes, background, slots=slots, warn=warn, errands=errands)
        self.ledger = ledger
        self.stream = stream
        self.rollouts = rollouts
        self.sampling = sampling
        self.resampling = resampling
        self.journal = journal
        self.taken_at = 0.0  # by the background's clock, at the end of the last `take`
        self._ahead = ledger.max_staleness > 0
        self._began = False  # with the first `take`, engines have the run's weights
        self._takes = False  # the learner waits in `take`
        self._wait_s = 0.0
        self._cpu_s = 0.0  # of the event loop's thread, at the end of the last `take`
        self._cpu_ms_per_completion = 0.0
        self._reported_drops = 0
        self._refused_engines: set[str] = set()  # that were warned about

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        if self.journal is not None:
            self.journal.close()

    def take(self, count: int) -> list[GroupRecord]:
        """The next `count` groups in the order of admission, or while `replaying` the next batch of the log.

        Raises an engine's or a reward worker's error, Stalled when nothing is sampled or scored for too long, and
        RunFailed when dynamic sampling replaces too many groups.
        """
        start, self._takes = self.background.now(), True
        with self._waiting(f"sample and score the {count} groups of step {self.rollouts.version + 1}"):
            groups, warning = self._between_errands(lambda: self._take(count))
        self._takes = False
        if warning:
            self.warn(warning)
        self.taken_at = self.background.now()
        self._wait_s = self.taken_at - start
        return groups

    def reading(self) -> Reading | None:
        """The run as of now, for the number of engines; None: a replay or an evaluation, which tell nothing."""
        slots = sum(worker.slots for worker in self.episodes.workers.values())
        if not self._began or self.replaying or self._scores or not slots:
            return None
        used = self.episodes.completions / slots
        return Reading(step=self.rollouts.version, learner_waits=self._takes, slots_used=min(1.0, used))

    def metrics(self) -> dict[str, float]:
        """Seconds of the last `take`; use of the engines and replaced groups since the last call; reward metrics.

        `prompts/skipped_<reason>`: positions of the prompt stream that the run has skipped so far; absent at 0.
        """
        return self._on_loop(self._metrics)

    def skipped(self) -> dict[str, int]:
        """Positions of the prompt stream that the run has skipped so far, by reason."""
        return self._on_loop(lambda: dict(self.ledger.skipped))

    @property
    def replaying(self) -> bool:
        """True while the log has batches that `take` will hand out again, beyond the one that it handed out last."""
        return self.journal is not None and self.journal.batches_left > 0

    def rewind(self, version: int) -> None:
        """Hands out all batches again that were taken to train `version` and later versions, after a learner's death.

        Raises RunFailed where the run keeps no log, or the log lacks one of the batches.
        """
        if self.journal is None:
            raise RunFailed(
                "checkpoint.every=0: the run keeps neither checkpoints nor a log of its prompts, so it cannot go on "
                "without its learner; set checkpoint.every"
            )
        journal = self.journal
        self._on_loop(lambda: journal.rewind(version))

    def open_log(self, step: int, *, resume: bool) -> int:
        """Opens the log, before the first take -> the last step that the log knows the batch of.

        With `resume`, a learner at `step` goes on with what the log holds. A log that cannot be read is warned about:
        prompts that were in flight at the checkpoint of `step`, or were admitted later, are sampled again from their
        first tokens. Call it after `restore`.
        """
        if (journal := self.journal) is None:
            return step
        try:
            resumed = resume and journal.restore(step, self.stream.at)
        except NoLog as problem:
            resumed = False
            self.warn(
                f"the log of the run's prompts is left out, and step {step} is followed by new samples: {problem}"
            )
        self._reported_drops = self.ledger.replaced
        self.background.run(self._in_time(journal.begin_epoch(step), "open the log"))
        if resumed:
            self.background.run(journal.resume(step))
        return step + journal.batches_left

    def begin_epoch(self, step: int) -> None:
        """Cuts the log where the checkpoint of `step` stands; before the checkpoint is saved."""
        if self.journal is not None:
            self.background.run(self._in_time(self.journal.begin_epoch(step), "open a part of the log"))

    def commit(self, step: int) -> None:
        """Deletes the parts of the log that nothing needs once the checkpoint of `step` is whole. For any thread."""
        if self.journal is not None:
            self.journal.commit(step)

    def state(self) -> dict[str, Any]:
        """The part of the checkpoint that `begin_epoch` has announced: see `Ledger.state`."""
        version = self.rollouts.version if self.journal is None else self.journal.step
        return self._on_loop(lambda: self.ledger.state(version))

    def restore(self, state: dict[str, Any]) -> None:
        """Continues from `state`."""
        self._on_loop(lambda: self.ledger.restore(state))
        self._reported_drops = self.ledger.replaced

    async def _take(self, count: int) -> tuple[list[GroupRecord], str | None] | None:
        """The groups, and a warning of dynamic sampling. None: an engine must be repaired first."""
        if self.journal is not None and self.journal.batches_left:
            return await self.journal.next_batch(), None
        if not self._began:
            self._began, self._cpu_s = True, time.thread_time()
            self._order([self._attempt(entry) for entry in self.ledger.in_flight if entry.scored is None])
        self.progress.begin_wait(self.background.now())
        self._check()
        self._drop()
        while (groups := await self._next_batch(count)) is None:
            self._admit()
            if self._has_errand:
                return None
            await self._wait()
            self._drop()
        if self._ahead:
            self._admit()
        cpu_s, completions = time.thread_time(), sum(len(group.trajectories) for group in groups)
        self._cpu_ms_per_completion = 1000 * (cpu_s - self._cpu_s) / max(1, completions)
        self._cpu_s = cpu_s
        return groups, self.resampling.end_step(self.rollouts.version + 1)

    async def _next_batch(self, count: int) -> list[GroupRecord] | None:
        """Takes a batch; the log has it before any step trains on it. None: the take must wait."""
        version = self.rollouts.version
        if self.journal is None:
            self.ledger.forget(version)
            return self.ledger.take(count, version) if self.episodes.is_whole else None
        if self.ledger.next_batch(count, version) is None:
            return None
        if not await self._in_time(self.journal.secure(count, version), "write groups into the log"):
            return None
        groups = self.ledger.take(count, version)
        await self._in_time(self.journal.flush(), "write the log of the run's prompts")
        self.ledger.forget(self.journal.committed)
        return groups

    def _on_report(self, worker: str, report: EpisodeReport) -> None:
        super()._on_report(worker, report)
        for engine, problem in report.refused.items():
            if engine not in self._refused_engines:
                self._refused_engines.add(engine)
                self.warn(f"{engine}: a completion was refused, as rollout/refused counts from now on: {problem}")
        if self._ahead and self._began:
            self._drop()
            self._admit()

    def _finish(self, finished: Finished) -> None:
        super()._finish(finished)
        self.ledger.record_score(finished.key, finished.record)

    def _held(self, worker: str) -> list[Order]:
        finished = [entry for entry in self.ledger.in_flight if entry.group and entry.group.worker == worker]
        return super()._held(worker) + self._orders(map(self._attempt, finished))

    def _give_up(self, key: str, reason: str) -> None:
        super()._give_up(key, reason)
        self.ledger.give_up(key)

    def _drop(self) -> None:
        if dropped := self.ledger.drop_without_signal():
            self.resampling.add(dropped)

    def _admit(self) -> None:
        if not self._ahead:
            self._order(self.ledger.admit(self.stream.at, self.rollouts.version, self.ledger.prompts_per_step))
            return
        if not self.episodes.has_room():
            return
        oldest_version = self.rollouts.oldest_version
        while attempts := self.ledger.admit(self.stream.at, oldest_version, limit=1):
            self._order(attempts)
            if not self.episodes.has_room():
                return

    def _attempt(self, entry: Entry) -> Attempt:
        """The attempt of a prompt that a restored log has in flight."""
        prompt = self.stream.at(entry.admitted.position)
        assert isinstance(prompt, Prompt)  # as of the admission
        return Attempt(prompt=prompt, number=entry.admitted.number, version=entry.admitted.version)

    def _order(self, attempts: list[Attempt]) -> None:
        if attempts:
            self._assign(self._orders(attempts))

    def _orders(self, attempts: Iterable[Attempt]) -> list[Order]:
        return [Order(key=each.key, prompt=each.prompt, sampling=self.sampling, taught=True) for each in attempts]

    def _open_groups(self) -> str:
        unscored = [entry.key for entry in self.ledger.in_flight if entry.scored is None]
        names = ", ".join(islice(unscored, NAMED_PROMPTS)) + (", ..." if len(unscored) > NAMED_PROMPTS else "")
        return f"groups: {self.ledger.ready} ready, {len(unscored)} open ({names}); {super()._open_groups()}"

    def _metrics(self) -> dict[str, float]:
        replaced, self._reported_drops = self.ledger.replaced - self._reported_drops, self.ledger.replaced
        skipped = {f"prompts/skipped_{reason}": float(count) for reason, count in self.ledger.skipped.items()}
        curriculum = self.ledger.curriculum.metrics() if self.ledger.curriculum else {}
        return (
            self.episodes.metrics()
            | skipped
            | curriculum
            | self.usage.take()
            | {
                "rollout/groups_ready": float(self.ledger.ready),
                "rollout/groups_open": float(self.ledger.open),
                "rollout/groups_replaced": float(replaced),
                "rollout/groups_given_up": float(self.ledger.given_up),
                "time/rollout_wait_s": self._wait_s,
                "time/driver_ms_per_completion": self._cpu_ms_per_completion,
            }
        )
