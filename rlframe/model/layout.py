"""Where the sequences of a packed batch lie, and what each continues: worked out once for all layers.

What a sequence begins with and the one before it holds or continues is not repeated, be it a group's prompt or a few
words that prompts share. It holds what follows, at positions that go on:

    tokens         a b c d e   x y   u v w   i j      "a b c" with completions "d e" and "x y", then "a u" with "v w"
    sequence_ids   0 0 0 0 0   1 1   2 2 2   3 3      and "i j"
    position_ids   0 1 2 3 4   3 4   1 2 3   2 3

A sequence that begins at position p continues the first p tokens of what the one before it reads, its own and those
that it continues: a trie, parents first. Whole sequences, which begin at 0, are its roots.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layout:
    """N sequences, T tokens."""

    lengths: list[int]  # [N] tokens that a sequence holds itself
    contexts: list[Tensor]  # [N] of [P], P from 0: where the tokens lie that it continues, from its root's first
    until: Tensor  # [T] the first later token that does not see it: all between do
    position_ids: Tensor  # [T]

    @classmethod
    def of(cls, sequence_ids: Tensor, position_ids: Tensor) -> Layout:
        """From a batch's [T] and [T]; sequences end to end, each numbered otherwise than its neighbours."""
        import torch

        counts = torch.unique_consecutive(sequence_ids, return_counts=True)[1]
        begins = position_ids[counts.cumsum(0) - counts].tolist()
        lengths = counts.tolist()
        contexts: list[Tensor] = []
        until = torch.full((len(position_ids),), len(position_ids))
        path = torch.empty(0, dtype=torch.int64)  # all tokens that the last one of a sequence sees
        start = 0
        for begin, length in zip(begins, lengths, strict=True):
            contexts.append(path[:begin])
            until[path[begin:]] = start
            path = torch.cat([path[:begin], torch.arange(start, start + length)])
            start += length
        return cls(lengths=lengths, contexts=contexts, until=until, position_ids=position_ids)

    def starts(self) -> list[int]:
        """[N] index of each sequence's first token."""
        return [0, *itertools.accumulate(self.lengths)][:-1]

    def boundaries(self) -> Tensor:
        """[N + 1] int32: where each sequence begins, and the end of the last."""
        import torch

        return torch.tensor([*self.starts(), sum(self.lengths)], dtype=torch.int32, device=self.position_ids.device)

    def are_whole(self) -> bool:
        """Whether no sequence continues another."""
        return not any(map(len, self.contexts))

    def predecessors(self) -> Tensor:
        """[T] index of the token before each; the prompt's last for the first of every completion.

        A whole sequence's first token has none, and an index without meaning.
        """
        import torch

        previous = torch.arange(-1, sum(self.lengths) - 1)
        for start, context in zip(self.starts(), self.contexts, strict=True):
            if len(context):
                previous[start] = context[-1]
        return previous.to(self.position_ids.device)
