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
    begin, tokens, last, escaped = 0, 0, len(text.rstrip()), re.escape(separator)
    # Decoding starts at the step before, as tokenizers may leave out a space in front of the first token. `head` is the
    # text of token_ids[start:tokens], which has a step, and so is the beginning of every longer text from `start` on.
    start, head = 0, ""

    def spelled(count: int) -> str:
        return text_of(token_ids[start:count])

    for found in re.finditer(rf"{escaped}(?:\s*{escaped})*", text):
        if not text[begin : found.start()].strip():
            continue
        length = len(head) + found.end() - begin
        low, high = tokens, tokens + 8
        while high < len(token_ids) and len(spelled(high)) < length:
            low, high = high, high + 2 * (high - low)
        end = bisect_left(range(high), length, lo=low, key=lambda count: len(spelled(count)))
        # A token may end inside a character, which then is another one.
        while (len(whole := spelled(end)) < length or not text.startswith(whole[len(head) :], begin)) and end < len(
            token_ids
        ):
            end += 1
        text_end = begin + len(whole) - len(head)
        if text_end >= last:
            break
        steps.append(text[begin:text_end])
        ends.append(end)
        start, tokens, begin = tokens, end, text_end
        head = spelled(end)
    return [*steps, text[begin:]], ends
