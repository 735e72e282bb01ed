"""Drivers that die at any time, over engines and episode workers on a virtual clock: each goes on from the log."""

from __future__ import annotations

import asyncio
import random
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from rlframe.training import GroupRecord
from rlframe.types import Late
from tests.tiny.timed import Shape, TimedRun, timed_run

LIVES = 6


@dataclass(kw_only=True)
class History:
    """A run over all its drivers."""

    shape: Shape
    run_dir: Path
    rng: random.Random
    saved: int = 0  # step of the newest checkpoint
    batches: dict[int, list[str]] = field(default_factory=dict)  # version -> prompts that were handed out to train it
    groups: dict[int, list[GroupRecord]] = field(default_factory=dict)

    def live(self, steps: int, *, resume: bool) -> TimedRun:
        """A driver's life of some steps and some seconds -> its run, which has ended without a word."""
        with timed_run(self.shape, run_dir=self.run_dir) as run:
            run.version = self.saved
            run.feed.open_log(self.saved, resume=resume)
            if not run.feed.replaying:
                run.feed.background.run(run.publish())
            for _ in range(steps):
                self.step(run)
            run.feed.background.run(asyncio.sleep(10 * self.rng.random()))
            run.feed.journal.log.flush()  # pyright: ignore
            run.feed.background.run(asyncio.sleep(self.rng.random()))  # of which the driver's log knows nothing
            dead = self.run_dir.with_name(self.run_dir.name + "+")
            shutil.copytree(self.run_dir, dead)
        self.run_dir = dead
        return run

    def step(self, run: TimedRun) -> None:
        version, groups = run.version, run.step()
        names = [group.prompt_id for group in groups]
        assert self.batches.setdefault(version, names) == names  # a replayed batch is the same
        self.groups[version] = groups
        if self.rng.random() < 0.4:
            run.feed.begin_epoch(run.version)
            if self.rng.random() < 0.7:
                run.feed.commit(run.version)
                self.saved = run.version


def random_shape(rng: random.Random, late: Late, max_staleness: int) -> Shape:
    lengths = random.Random(rng.random())
    tokens = [[lengths.randint(1, 200) for _ in range(3)] for _ in range(500)]
    return Shape(
        late=late,
        max_staleness=max_staleness,
        prompts_per_step=3,
        group_size=3,
        engines=2,
        slots=rng.randint(2, 10),
        workers=rng.randint(1, 2),
        token_s=0.1,
        lengths=tokens.__getitem__,
        scoring_s=lambda: rng.choice([0.0, 0.1, 2.0]),
        step_s=lambda: rng.choice([0.1, 1.0, 5.0]),
        dynamic_sampling=rng.random() < 0.3,
    )


@pytest.mark.parametrize("late, max_staleness", [("wait", 0), ("wait", 2), ("mask", 2), ("keep", 3)])
@pytest.mark.parametrize("seed", range(10))
def test_drivers_that_die_lose_no_prompt_and_repeat_none(
    late: Late, max_staleness: int, seed: int, tmp_path: Path
) -> None:
    rng = random.Random(seed)
    history = History(shape=random_shape(rng, late, max_staleness), run_dir=tmp_path / "run", rng=rng)
    for life in range(LIVES):
        run = history.live(rng.randint(0, 4), resume=life > 0)
    run = history.live(12, resume=True)

    ledger = run.feed.ledger
    trained = [name for names in history.batches.values() for name in names]
    in_flight = [entry.admitted.prompt_id for entry in ledger.in_flight]
    assert len(trained) == len(set(trained)) == ledger.taken
    assert not set(trained) & set(in_flight)
    assert ledger.admitted == len(trained) + len(in_flight) + ledger.dropped == ledger._next_position
    for version, groups in history.groups.items():
        for group in groups:
            # Whole completions of the lengths that the prompt has: none was sampled anew with another length.
            assert group.lengths == history.shape.lengths(int(group.prompt_id[1:]))
            for completion in group.body.group.completions:
                assert completion.token_ids.tolist() == list(range(len(completion.token_ids)))
            if late == "wait":
                spans = [span for row in group.trajectories for span in row.versions]
                assert max(version - span.version for span in spans) <= max_staleness


def test_a_completion_goes_on_after_the_tokens_that_the_log_holds(tmp_path: Path) -> None:
    """Of 100 tokens at 0.1 s, a driver dies after 60; the next one waits for 40, and for the last second again."""
    shape = Shape(
        late="wait",
        max_staleness=0,
        prompts_per_step=1,
        group_size=1,
        engines=1,
        token_s=0.1,
        lengths=lambda _: [100],
        step_s=lambda: 0.0,
    )
    with timed_run(shape, run_dir=tmp_path / "run") as run:
        run.feed.open_log(0, resume=False)
        dying = run.feed.background.now() + 6.0

        async def die() -> None:
            run.feed.background.start(run.feed._take(1))  # pyright: ignore
            await asyncio.sleep(dying - run.feed.background.now())

        run.feed.background.run(die())
        run.feed.journal.log.flush()  # pyright: ignore
        shutil.copytree(tmp_path / "run", tmp_path / "dead")
    with timed_run(shape, run_dir=tmp_path / "dead") as again:
        again.feed.open_log(0, resume=True)
        began = again.feed.background.now()
        [group] = again.feed.take(1)
        assert 3.9 < again.feed.background.now() - began < 5.2
        assert group.body.group.completions[0].token_ids.tolist() == list(range(100))
