"""`Partials`: tokens of completions that an engine has not finished, as one message."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self, TypeAlias

import numpy as np

from rlframe.types import SampledTokens, VersionSpan

Asked: TypeAlias = tuple[str, str, int]  # name of a call of `generate`, prompt id, index of a completion in its group


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Partials:
    """Tokens of an engine's unfinished completions in flat arrays: one small message for all of them.

    Two new tokens of completion 2, after its first 5, and one of completion 0, after its first 9:

        completions [("a", "o3@0", 2), ("b", "o7@0", 0)]    starts [5, 9]    ends [2, 3]
        token_ids [11, 12, 4]    logprobs [-1.0, -0.5, -0.1]    versions [3, 3, 4]
    """

    completions: list[Asked]  # [C]
    starts: np.ndarray  # [C] int32: place of the first token in its completion
    ends: np.ndarray  # [C] int32: place after the last token in the arrays below
    token_ids: np.ndarray  # [T] int32
    logprobs: np.ndarray  # [T] float32
    versions: np.ndarray  # [T] int32

    @classmethod
    def of(cls, parts: Sequence[tuple[Asked, SampledTokens]]) -> Self:
        """Packs the tokens of completions; `parts` is not empty."""
        tokens = [part for _, part in parts]
        spans = [span for part in tokens for span in part.versions]
        return cls(
            completions=[asked for asked, _ in parts],
            starts=np.array([part.start for part in tokens], np.int32),
            ends=np.cumsum([len(part.token_ids) for part in tokens], dtype=np.int32),
            token_ids=np.concatenate([part.token_ids for part in tokens]),
            logprobs=np.concatenate([part.logprobs for part in tokens]),
            versions=np.repeat(
                np.array([span.version for span in spans], np.int32), [span.end - span.start for span in spans]
            ),
        )

    def split(self) -> Iterator[tuple[Asked, SampledTokens]]:
        """The tokens of each completion, as copies: a slice would keep the whole message in memory."""
        first = 0
        for asked, start, last in zip(self.completions, self.starts.tolist(), self.ends.tolist(), strict=True):
            part = slice(first, last)
            yield (
                asked,
                SampledTokens(
                    start=start,
                    token_ids=self.token_ids[part].copy(),
                    logprobs=self.logprobs[part].copy(),
                    versions=_spans(self.versions[part], start),
                ),
            )
            first = last


def _spans(versions: np.ndarray, start: int) -> list[VersionSpan]:
    """The spans of tokens with these versions, the first of which is token `start` of its completion."""
    if not len(versions):
        return []
    bounds = [0, *(np.flatnonzero(np.diff(versions)) + 1).tolist(), len(versions)]
    return [
        VersionSpan(version=int(versions[first]), start=start + first, end=start + last)
        for first, last in pairwise(bounds)
    ]
