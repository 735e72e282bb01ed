"""Held-out conversations, and the training problems that have the same conversation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b

from rlframe.prompts.base import Problems, in_order
from rlframe.types import Message, Problem

NAMED_PAIRS = 2


class HeldOut:
    """Conversations of all held-out problems, by a digest of their text: 16 bytes and an id for each problem."""

    def __init__(self, sets: Iterable[Problems]) -> None:
        self._ids = {digest(problem.messages): problem.id for problems in sets for problem in in_order(problems)}

    def match(self, problem: Problem) -> str | None:
        """The id of a held-out problem with the conversation of `problem`; None: it may be trained on."""
        return self._ids.get(digest(problem.messages))


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """Training problems compared with held-out conversations."""

    compared: int
    count: int  # of training problems whose conversation is held out
    named: list[tuple[str, str]]  # ids (training, held-out) of the first NAMED_PAIRS of them
    tasks: dict[str, Problem]  # the first problem of every task


def compare(train: Iterable[Problem], heldout: HeldOut) -> Overlap:
    """Reads the training problems once, and keeps none but those that `Overlap` names."""
    compared = count = 0
    named: list[tuple[str, str]] = []
    tasks: dict[str, Problem] = {}
    for problem in train:
        compared += 1
        tasks.setdefault(problem.task, problem)
        if (heldout_id := heldout.match(problem)) is not None:
            count += 1
            if len(named) < NAMED_PAIRS:
                named.append((problem.id, heldout_id))
    return Overlap(compared=compared, count=count, named=named, tasks=tasks)


def digest(messages: list[Message]) -> bytes:
    """[16] of a conversation. Conversations that differ in white space only have the same digest."""
    text = "\n".join(f"{message['role']}: {' '.join(message['content'].split())}" for message in messages)
    return blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest()
