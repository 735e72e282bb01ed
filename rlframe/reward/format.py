"""Format reward of DeepSeek-R1: thoughts in their tags, then the answer in its tags."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, model_validator

from rlframe.answers.thoughts import check_opened
from rlframe.reward.base import Reward
from rlframe.types import Completion, Prompt

TAG_NAME = r"^[A-Za-z][A-Za-z0-9_-]*$"


class Format(Reward):
    """1 for a completion of the form `<think>…</think> <answer>…</answer>`, each tag once, neither empty; else 0.

    The structure is that of the R1-Zero template (DeepSeek-AI, 2025, arXiv:2501.12948, table 1).

    `opened`: the chat template ends the prompt with `<think>`, so the completion must not write that tag again.

    `partial`: a share for every tag that the completion has to write and that occurs once and in order, and one more
    share for the whole structure. All four tags with a word too many score 4/5; with `opened` three tags score 3/4.
    """

    name: Literal["format"]
    think: str = Field(pattern=TAG_NAME)  # name of the tag, without brackets
    answer: str = Field(pattern=TAG_NAME)
    opened: bool
    partial: bool

    @model_validator(mode="after")
    def _tags_differ(self) -> Format:
        if self.think == self.answer:
            raise ValueError(f"think and answer are both {self.think!r}; they must be two tags")
        return self

    def check_prompt(self, text: str) -> None:
        check_opened(text, f"<{self.think}>", self.opened)

    def tags(self) -> list[str]:
        return [f"<{self.think}>", f"</{self.think}>", f"<{self.answer}>", f"</{self.answer}>"]

    def __call__(self, prompt: Prompt, completion: Completion) -> float:
        tags = self.tags()
        text = completion.text.strip()
        if self.opened:
            text = tags[0] + text
        starts = [text.find(tag) if text.count(tag) == 1 else -1 for tag in tags]
        whole = min(starts) >= 0 and is_whole(text, tags)
        if whole or not self.partial:
            return float(whole)
        template_tags = int(self.opened)
        return count_in_order(starts[template_tags:]) / (len(tags) - template_tags + 1)


def is_whole(text: str, tags: list[str]) -> bool:
    """True for tag, thoughts, tag, white space, tag, answer, tag; in `text` every tag occurs once.

    >>> is_whole("<a>x</a> <b>y</b>", ["<a>", "</a>", "<b>", "</b>"])
    True
    """
    match = re.fullmatch(r"{}(.*){}\s*{}(.*){}".format(*tags), text, re.DOTALL)
    return match is not None and bool(match[1].strip()) and bool(match[2].strip())


def count_in_order(starts: list[int]) -> int:
    """Number of tags that are present and follow the last counted tag."""
    count, last = 0, -1
    for start in starts:
        if start > last:
            count, last = count + 1, start
    return count
