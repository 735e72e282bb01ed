"""`RowStream`: an endless sequence of rows, drawn from the parts of a mixture by their weights."""

from __future__ import annotations

import random
from array import array
from collections.abc import Mapping
from functools import cached_property, lru_cache
from hashlib import blake2b
from itertools import accumulate

from rlframe.rows.sources import Joined, Rows, RowSource
from rlframe.rows.types import Row


class RowStream:
    """Every part `weight` times an epoch, all shuffled together; (seed, epoch) alone decide an epoch.

    The stream never changes: a position always gives the same row, so a run resumes from a saved position. A part of
    10 rows and weight 1.5 gives 15 positions of an epoch: every row once, and 5 of the rows, others in each epoch, a
    second time.
    """

    def __init__(self, sources: Mapping[str, RowSource], seed: int) -> None:
        """Raises ValueError for a source that cannot be read, and for one of which its weight leaves no row."""
        parts = {name: source.load() for name, source in sources.items()}
        if empty := [name for name, part in parts.items() if not len(part)]:
            raise ValueError(f"{f'parts.{empty[0]}' if empty[0] else 'path'}: holds no row")
        self.rows: Rows = Joined(list(parts.values()))
        ends = list(accumulate(map(len, parts.values()), initial=0))
        weights = [source.weight for source in sources.values()]
        self._parts = list(zip(ends, ends[1:], weights, strict=False))  # first row, end, weight
        self._seed = seed
        lengths = [round((end - first) * weight) for first, end, weight in self._parts]
        if without := [name for name, length in zip(parts, lengths, strict=True) if not length]:
            source = sources[without[0]]
            raise ValueError(
                f"parts.{without[0]}.weight: {source.weight:g} of {len(parts[without[0]])} rows is no row; raise it, "
                "or leave the part out"
            )
        self._length = sum(lengths)
        self._epoch_order = lru_cache(maxsize=2)(self._shuffled)

    def __len__(self) -> int:
        """Positions of an epoch."""
        return self._length

    def at(self, position: int) -> Row:
        """The row at a position, from 0 on. Raises ValueError for a record that is no row."""
        return self.rows[self.index(position)]

    def index(self, position: int) -> int:
        """The index in `rows` of the row at a position."""
        epoch, place = divmod(position, self._length)
        return self._epoch_order(epoch)[place]

    def weight(self, index: int) -> float:
        """Times that an epoch takes the row at an index of `rows`."""
        return next(weight for _, end, weight in self._parts if index < end)

    @cached_property
    def digest(self) -> str:
        """Equal for streams of equally many rows in the same order; their texts are not read."""
        return blake2b(self._epoch_order(0).tobytes(), digest_size=8).hexdigest()

    def _shuffled(self, epoch: int) -> array[int]:
        """Indices of an epoch's rows in their order, in 4 bytes each."""
        rng = random.Random(f"{self._seed}/{epoch}")
        order = array("I")
        for first, end, weight in self._parts:
            copies, rest = divmod(round((end - first) * weight), end - first)
            order.extend(array("I", range(first, end)) * copies)
            order.extend(rng.sample(range(first, end), rest))
        rng.shuffle(order)
        return order
