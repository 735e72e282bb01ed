"""The layout of a packed batch: the place of each sequence, and the tokens that it continues. All layers share it.

Sequences with a common prefix are adjacent. The first one holds the prefix; the others start after it, and their
`position_ids` continue from it. Prompt "a b c" with completions "d e" and "x y", then "a u" with "v w" and "i j":

    index          0 1 2 3 4   5 6   7 8 9   10 11
    tokens         a b c d e   x y   u v w    i  j
    sequence_ids   0 0 0 0 0   1 1   2 2 2    3  3
    position_ids   0 1 2 3 4   3 4   1 2 3    2  3
    context        -           0 1 2 0        0  7      indices of the tokens before the sequence's own

Two turns "d e" and "f g" after prompt "a b c" are one sequence, "a b c d e f g". A second answer "x y" to the first
turn continues the five tokens "a b c d e":

    tokens         a b c d e f g   x y
    sequence_ids   0 0 0 0 0 0 0   1 1
    position_ids   0 1 2 3 4 5 6   5 6

A sequence that starts at position p continues the first p tokens that its predecessor attends to, context included: a
trie, parents first. Whole sequences start at position 0 and are its roots.
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

    lengths: list[int]  # [N] own tokens of each sequence
    contexts: list[Tensor]  # [N] of [P]: indices of the tokens that a sequence continues, from its root on; P may be 0
    until: Tensor  # [T] end of the range of tokens that attend to this one
    position_ids: Tensor  # [T]

    @classmethod
    def of(cls, sequence_ids: Tensor, position_ids: Tensor) -> Layout:
        """From [T] and [T] of a batch; neighbouring sequences have different numbers."""
        import torch

        counts = torch.unique_consecutive(sequence_ids, return_counts=True)[1]
        first_positions = position_ids[counts.cumsum(0) - counts].tolist()
        lengths = counts.tolist()
        contexts: list[Tensor] = []
        until = torch.full((len(position_ids),), len(position_ids))
        path = torch.empty(0, dtype=torch.int64)  # tokens that the last token of the sequence attends to
        start = 0
        for first_position, length in zip(first_positions, lengths, strict=True):
            contexts.append(path[:first_position])
            until[path[first_position:]] = start
            path = torch.cat([path[:first_position], torch.arange(start, start + length)])
            start += length
        return cls(lengths=lengths, contexts=contexts, until=until, position_ids=position_ids)

    def starts(self) -> list[int]:
        """[N] index of each sequence's first token."""
        return [0, *itertools.accumulate(self.lengths)][:-1]

    def boundaries(self) -> Tensor:
        """[N + 1] int32: where each sequence begins, and the end of the last."""
        import torch

        return torch.tensor([*self.starts(), sum(self.lengths)], dtype=torch.int32, device=self.position_ids.device)

    def sequence_numbers(self) -> Tensor:
        """[T] int32: 0, 0, ..., 1, 1, ..."""
        import torch

        numbers = torch.arange(len(self.lengths), dtype=torch.int32)
        return numbers.repeat_interleave(torch.tensor(self.lengths)).to(self.position_ids.device)

    def are_whole(self) -> bool:
        """True if no sequence continues another."""
        return not any(map(len, self.contexts))

    def predecessors(self) -> Tensor:
        """[T] index of the token before each one; for a completion's first token, of its prompt's last.

        The first token of a whole sequence has no predecessor: its index has no meaning.
        """
        import torch

        previous = torch.arange(-1, sum(self.lengths) - 1)
        for start, context in zip(self.starts(), self.contexts, strict=True):
            if len(context):
                previous[start] = context[-1]
        return previous.to(self.position_ids.device)
