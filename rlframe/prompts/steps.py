"""`cut`: the steps of a sampled completion, for labels of steps and for the scores of a process reward model."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Annotated, TypeAlias

from pydantic import AfterValidator, Field

TextOf: TypeAlias = Callable[[Sequence[int]], str]  # the text of a completion's first tokens
# The text that ends a step; a shell leaves \n as two characters.
Separator = Annotated[str, Field(min_length=1), AfterValidator(lambda text: text.replace(r"\n", "\n"))]


def cut(text: str, token_ids: list[int], separator: str, text_of: TextOf) -> tuple[list[str], list[int]]:
    """The steps of a completion, and its tokens up to the end of each step but the last.

    A step ends behind a separator, or a run of them, and has more than white space. Where a token reaches over the
    end, the step ends behind the token. Separator and tokens of a newline, with one token for ".\\n":

        "\\n" "2" "+" "3" "\\n" "\\n" "5" ".\\n"     ->     ["\\n2+3\\n\\n", "5.\\n"], [6]

    Raises ValueError where the tokens spell another text.
    """
    if text_of(token_ids) != text:
        raise ValueError("the token ids spell another text by this model's tokenizer; continue with the model's own")
    steps: list[str] = []
    ends: list[int] = []
    begin, tokens, escaped = 0, 0, re.escape(separator)
    for found in re.finditer(rf"{escaped}(?:\s*{escaped})*", text):
        if not text[begin : found.start()].strip():
            continue
        tokens = bisect_left(range(len(token_ids)), found.end(), lo=tokens, key=lambda n: len(text_of(token_ids[:n])))
        # A token may end inside a character, which then is another one.
        while len(whole := text_of(token_ids[:tokens])) < found.end() or not text.startswith(whole):
            tokens += 1
        if text[len(whole) :].strip():
            steps.append(text[begin : len(whole)])
            ends.append(tokens)
            begin = len(whole)
    return [*steps, text[begin:]], ends
