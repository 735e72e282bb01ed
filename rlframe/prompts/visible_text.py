"""`VisibleText`: the text of sampled tokens, as a user of the policy sees it and rewards read it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

OPENING_TAG = re.compile(r"<(\w+)>")


class VisibleText:
    """Detokenizes completions without control tokens.

    Special tokens are control tokens (end of text, padding, roles of a chat), unless they are a pair of tags: a
    tokenizer in which `<think>` and `</think>` are special still shows thoughts in their tags.

        sampled   <think> 2 + 3 = 5 </think> 5 <|im_end|>       all three in angle brackets are special
        text      <think>2 + 3 = 5</think>5
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._control_ids = _control_ids(tokenizer)

    def of(self, token_ids: Sequence[int]) -> str:
        visible_ids = [token_id for token_id in token_ids if token_id not in self._control_ids]
        return cast("str", self._tokenizer.decode(visible_ids, skip_special_tokens=False))


def _control_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Ids of the special tokens that are no pair of tags; `<s>` and `</s>`, which begin and end texts, are no pair."""
    added = {token_id: token.content for token_id, token in tokenizer.added_tokens_decoder.items() if token.special}
    special = added | dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))
    names = set(special.values())
    names -= {tokenizer.special_tokens_map.get(role) for role in ("bos_token", "eos_token", "pad_token", "unk_token")}
    tags = {match[1] for name in names if (match := OPENING_TAG.fullmatch(name)) and f"</{match[1]}>" in names}
    pairs = {f"<{tag}>" for tag in tags} | {f"</{tag}>" for tag in tags}
    return {token_id for token_id, name in special.items() if name not in pairs}
