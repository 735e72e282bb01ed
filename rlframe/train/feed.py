"""`open_feed`: the feed of a run, with the ledger, curriculum and bound on resampling that the config asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rlframe.algorithm.rate import has_signal
from rlframe.experience.curriculum import Curriculum
from rlframe.experience.errands import Errands
from rlframe.experience.flow import RolloutFeed
from rlframe.experience.journal import Journal
from rlframe.experience.ledger import Ledger
from rlframe.experience.resampling import Resampling

if TYPE_CHECKING:
    from rlframe.actors.background import Background
    from rlframe.config.run import RunConfig
    from rlframe.prompts.stream import PromptStream
    from rlframe.record.ledger_log import LedgerLog
    from rlframe.rollout.episode_pool import EpisodePool
    from rlframe.rollout.pool import RolloutPool


def open_feed(
    run: RunConfig,
    stream: PromptStream,
    rollouts: RolloutPool,
    episodes: EpisodePool,
    background: Background,
    warn: Callable[[str], None],
    errands: Errands | None = None,
    log: LedgerLog | None = None,
) -> RolloutFeed:
    """The feed of a run, which samples once its `with` block is entered. `warn` gets lines for the console.

    `log`: of the prompts; None: a run without checkpoints keeps none.
    """
    ledger = Ledger(
        prompts_per_step=run.prompts_per_step,
        max_staleness=run.max_staleness,
        dynamic_sampling=run.dynamic_sampling,
        late=run.late if run.max_staleness else "wait",
        has_signal=lambda group: has_signal(group, run.algorithm, run.truncated),
        curriculum=_curriculum(run, stream, warn),
    )
    return RolloutFeed(
        ledger,
        stream,
        rollouts,
        episodes,
        background,
        run.rollout.sampling(run.seed),
        Resampling(prompts_per_step=run.prompts_per_step, max_resampled=run.max_resampled, reward=run.deciding_reward),
        slots=run.rollout.slots,
        warn=warn,
        errands=errands,
        journal=Journal(ledger, log, episodes) if log else None,
    )


def _curriculum(run: RunConfig, stream: PromptStream, warn: Callable[[str], None]) -> Curriculum | None:
    if run.prompts.curriculum is None:
        return None
    return Curriculum(
        run.prompts.curriculum,
        stream.locate,
        problems=len(stream),
        prompts_per_step=run.prompts_per_step,
        reward=run.deciding_reward,
        seed=run.seed,
        warn=warn,
    )
