"""Makes the typed handle of a run's ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlframe.actors.replicas import Handle
from rlframe.learner.group import LearnerGroup
from rlframe.objective.objective import Objective

if TYPE_CHECKING:
    from rlframe.config.keys import SharedKeys
    from rlframe.training import Packing


def learner_group(run: SharedKeys, ranks: list[Handle], packing: Packing) -> LearnerGroup:
    return LearnerGroup(
        ranks,
        objective(run),
        micro_batch_tokens=run.learner.micro_batch_tokens,
        packing=packing,
        sequence_parallel=run.learner.sequence_parallel,
        timeout_s=run.cluster.stall_timeout_s,
        max_skipped=run.learner.max_skipped,
        chat_template=run.chat_template,
    )


def objective(run: SharedKeys) -> Objective:
    """The objective of the run's steps, without a correction that the mismatch gate may switch on later."""
    return Objective(
        algorithm=run.algorithm,
        kl=run.kl,
        corrections=run.initial_correction,
        entropy_bonus=run.learner.entropy_bonus,
    )
