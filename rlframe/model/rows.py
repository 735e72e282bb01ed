"""`Rows`: the sequences of a packed batch as padded rows, for models that take one sequence a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from rlframe.model.layout import Layout


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rows:
    """N whole sequences of T tokens, in rows of the longest one's L cells; padding is on the right.

    Sequences "a b c" and "d" make rows "a b c" and "d - -": `is_token` is [[1, 1, 1], [1, 0, 0]].
    """

    is_token: Tensor  # [N, L] bool; False: padding

    @classmethod
    def of(cls, layout: Layout) -> Rows:
        """Raises ValueError for sequences that continue another."""
        import torch

        if not layout.are_whole():
            raise ValueError("a padded row holds a whole sequence, and this batch shares prefixes")
        lengths = torch.tensor(layout.lengths, device=layout.position_ids.device)
        return cls(is_token=torch.arange(max(layout.lengths), device=lengths.device) < lengths[:, None])

    def fill(self, values: Tensor, padding: float) -> Tensor:
        """[T, ...] -> [N, L, ...], with `padding` after each sequence."""
        rows = values.new_full((*self.is_token.shape, *values.shape[1:]), padding)
        rows[self.is_token] = values
        return rows

    def flatten(self, rows: Tensor) -> Tensor:
        """[N, L, ...] -> [T, ...]."""
        return rows[self.is_token]
