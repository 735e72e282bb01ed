"""Format reward of DeepSeek-R1: the thoughts in their tags, then the answer in its own."""

from __future__ import annotations

import re
from typing import Literal

from rlframe.reward.base import Reward
from rlframe.types import Completion, Prompt

TAGS = ("<think>", "</think>", "<answer>", "</answer>")
STRUCTURE = re.compile(r"<think>(.*)</think>\s*<answer>(.*)</answer>", re.DOTALL)


class Format(Reward):
    """1 where the whole completion is `<think>…</think> <answer>…</answer>`, each tag once, neither empty; else 0.

    The structure is that of the R1-Zero template (DeepSeek-AI, 2025, arXiv:2501.12948, table 1). The completion
    must hold the opening `<think>` itself: with a chat template that ends in `<think>` every score is 0.
    """

    name: Literal["format"]  # pyright: ignore[reportIncompatibleVariableOverride] (frozen, so narrowing is sound)

    def __call__(self, prompt: Prompt, completion: Completion) -> float:
        text = completion.text.strip()
        if any(text.count(tag) != 1 for tag in TAGS):
            return 0.0
        match = STRUCTURE.fullmatch(text)
        return float(match is not None and all(part.strip() for part in match.groups()))
