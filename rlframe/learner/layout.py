"""Where the sequences of a packed batch lie, and which continue the prompt of another: worked out once for all layers.

A group's prompt stands once in a micro-batch. Its first sequence is whole, and its others hold only what follows the
prompt, at positions that go on where the prompt ends:

    tokens         a b c d e   x y   u v w      prompt "a b c" with completions "d e" and "x y", then another sequence
    sequence_ids   0 0 0 0 0   1 1   2 2 2
    position_ids   0 1 2 3 4   3 4   0 1 2      a sequence that begins at 3 continues 3 tokens of the last whole one
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layout:
    """N sequences, T tokens: a tree of depth one for each prompt that is shared."""

    lengths: list[int]  # [N] tokens that a sequence holds itself
    roots: list[int]  # [N] the whole sequence whose first `shared` tokens it continues; a whole one is its own
    shared: list[int]  # [N] one number for all that continue a root; 0: whole
    position_ids: Tensor  # [T]

    @classmethod
    def of(cls, sequence_ids: Tensor, position_ids: Tensor) -> Layout:
        """From a batch's [T] and [T]; sequences end to end, each numbered otherwise than its neighbours."""
        import torch

        counts = torch.unique_consecutive(sequence_ids, return_counts=True)[1]
        shared = position_ids[counts.cumsum(0) - counts].tolist()
        roots: list[int] = []
        for at, tokens in enumerate(shared):
            roots.append(roots[-1] if tokens else at)
        return cls(lengths=counts.tolist(), roots=roots, shared=shared, position_ids=position_ids)

    def starts(self) -> list[int]:
        """[N] index of each sequence's first token."""
        return [0, *itertools.accumulate(self.lengths)][:-1]

    def boundaries(self) -> Tensor:
        """[N + 1] int32: where each sequence begins, and the end of the last."""
        import torch

        return torch.tensor([*self.starts(), sum(self.lengths)], dtype=torch.int32, device=self.position_ids.device)

    def predecessors(self) -> Tensor:
        """[T] index of the token before each; the prompt's last for the first of every completion.

        A whole sequence's first token has none, and an index without meaning.
        """
        import torch

        previous = torch.arange(-1, sum(self.lengths) - 1)
        starts = self.starts()
        for start, root, shared in zip(starts, self.roots, self.shared, strict=True):
            if shared:
                previous[start] = starts[root] + shared - 1
        return previous.to(self.position_ids.device)
