"""Format reward of DeepSeek-R1: the thoughts in their tags, then the answer in its own."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from rlframe.reward.base import Reward
from rlframe.types import Completion, Prompt

TAG_NAME = r"^[A-Za-z][A-Za-z0-9_-]*$"


class Format(Reward):
    """1 where the whole completion is `<think>…</think> <answer>…</answer>`, each tag once, neither empty; else 0.

    The structure is that of the R1-Zero template (DeepSeek-AI, 2025, arXiv:2501.12948, table 1).

    With `opened` the chat template has put the opening `<think>` at the prompt's end: the completion starts behind it,
    and writing it again is wrong.

    With `partial` a completion gets a share: one part for every tag that it has to write and that stands there once
    and in order, one more for the whole being right. Four of five parts, 0.8, for all tags and a word too much; with
    `opened` three of four.
    """

    name: Literal["format"]  # pyright: ignore[reportIncompatibleVariableOverride] (frozen, so narrowing is sound)
    think: str = Field(pattern=TAG_NAME)  # the tag's name, without brackets
    answer: str = Field(pattern=TAG_NAME)
    opened: bool
    partial: bool

    @model_validator(mode="after")
    def _tags_differ(self) -> Format:
        if self.think == self.answer:
            raise ValueError(f"think and answer are both {self.think!r}; they must be two tags")
        return self

    def __call__(self, prompt: Prompt, completion: Completion) -> float:
        tags = [f"<{self.think}>", f"</{self.think}>", f"<{self.answer}>", f"</{self.answer}>"]
        text = completion.text.strip()
        if self.opened:
            text = tags[0] + text
        places = [text.find(tag) if text.count(tag) == 1 else -1 for tag in tags]
        whole = is_whole(text, tags, places)
        if whole or not self.partial:
            return float(whole)
        given = int(self.opened)
        right = count_in_order(places[given:])
        return right / (len(tags) - given + 1)


def is_whole(text: str, tags: list[str], places: list[int]) -> bool:
    """Whether `text` is tag, thoughts, tag, white space, tag, answer, tag. places: where each tag stands; -1: not once.

    >>> is_whole("<a>x</a> <b>y</b>", ["<a>", "</a>", "<b>", "</b>"], [0, 4, 9, 13])
    True
    """
    if min(places) < 0 or places != sorted(places) or places[0] != 0:
        return False
    ends = [place + len(tag) for place, tag in zip(places, tags, strict=True)]
    thoughts, between, answer = (text[ends[i] : places[i + 1]].strip() for i in range(3))
    return bool(thoughts) and not between and bool(answer) and ends[3] == len(text)


def count_in_order(places: list[int]) -> int:
    """How many of them are neither missing nor before one that counts already."""
    right, last = 0, -1
    for place in places:
        if place > last:
            right, last = right + 1, place
    return right
