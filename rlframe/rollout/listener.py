"""`Listener`: what a sampler tells the owner of its orders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rlframe.rollout.messages import Order
from rlframe.types import Completion, SampledTokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """The callbacks of a sampler."""

    # A whole completion of an order: index in the group, completion.
    on_completion: Callable[[Order, int, Completion], None]
    # New tokens of a completion: index, attempt, tokens. They replace all tokens from `start` on, which are of an
    # earlier attempt; usually there are none.
    on_tokens: Callable[[Order, int, int, SampledTokens], None]
    # A completion that no engine survives: index, reason. Told once of an order, of which nothing is told afterwards.
    on_given_up: Callable[[Order, int, str], None]
    # A refused completion, or a broken engine.
    on_news: Callable[[], None]
