"""`loss_of_ranks`: tells the death of ranks, which new ranks cure, from an exception in their work."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

import ray
from ray.exceptions import RayError, RayTaskError

from rlframe.actors.calls import numbered
from rlframe.actors.failure import describe
from rlframe.errors import BodyLost, Stalled

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.actor import ActorHandle

NOTICE_S = 5.0  # in which Ray reports a death that another rank's collective has noticed first


def loss_of_ranks(error: RayError | Stalled, calls: Iterable[ObjectRef]) -> str | None:
    """The reason why the ranks of `calls` are lost; None for an exception of living ranks, which would come again.

    A rank that dies in a collective lets the other ranks raise, often before Ray reports the death: `error` may be
    such an exception. Tokens that are lost count too: a rank without them has left the other ranks in a collective.
    """
    if isinstance(error, RayTaskError):
        death = error if isinstance(error, BodyLost) else _death(list(calls))
        return None if death is None else describe(death)
    return str(error) if isinstance(error, Stalled) else describe(error)


def dead_ranks(ranks: list[ActorHandle]) -> list[str]:
    """Names of the ranks that Ray reports dead within `NOTICE_S`. A call to a dead actor fails at once."""
    calls = numbered("learner", [rank.__ray_ready__.remote() for rank in ranks])
    ray.wait(list(calls.values()), num_returns=len(calls), timeout=NOTICE_S)
    return [name for name, call in calls.items() if _death([call], timeout_s=0.0)]


def _death(calls: list[ObjectRef], timeout_s: float = NOTICE_S) -> RayError | None:
    """The error of a call whose rank dies within `timeout_s`; None where none does."""
    deadline = time.monotonic() + timeout_s
    while calls:
        done, calls = ray.wait(calls, timeout=max(0.0, deadline - time.monotonic()))
        if not done:
            break
        try:
            ray.get(done)
        except RayTaskError:
            continue
        except RayError as death:
            return death
    return None
