"""`Renderer`: a conversation as the text, and the tokens, that the policy completes."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, cast

from rlframe.errors import ConfigError
from rlframe.prompts.template import ChatTemplate
from rlframe.prompts.visible_text import VisibleText
from rlframe.types import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SURROGATE = re.compile("[\ud800-\udfff]")


class Renderer:
    """Applies the model's chat template, a template of one's own, or none to a conversation."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: ChatTemplate) -> None:
        """Raises ValueError for a model without a chat template, and for arguments that the chat template never reads.

        A template that is `raw` needs no chat template.
        """
        self._tokenizer = tokenizer
        self._arguments = template.chat_template_kwargs or {}
        self._chat_template = None if template.raw else _chat_template(tokenizer, template)
        if self._chat_template is not None:
            _check_arguments(tokenizer, self._chat_template, list(self._arguments))

    def text(self, messages: list[Message], *, to_complete: bool = True) -> str:
        """The prompt, up to the completion's first character. Raises ConfigError if the chat template fails.

        `to_complete=False`: a whole conversation, which ends with the assistant's answer.
        """
        if self._chat_template is None:
            return raw_text(messages)
        from jinja2 import TemplateError

        try:
            rendered = self._tokenizer.apply_chat_template(
                messages,
                chat_template=self._chat_template,
                add_generation_prompt=to_complete,
                tokenize=False,
                **self._arguments,
            )
        except TemplateError as error:
            raise ConfigError(
                f"the chat template fails on a conversation of {_roles(messages)}: {error}. If it takes no "
                "system message, write its text into the message of the user: prompts.template.system='' and "
                "prompts.template.user, or in rows their messages"
            ) from error
        return cast("str", rendered)  # the result for one conversation that is not tokenized

    def token_ids(self, messages: list[Message]) -> list[int]:
        """The tokens of the prompt."""
        return self.prompt_token_ids(self.text(messages))

    def prompt_token_ids(self, prompt: str) -> list[int]:
        """The tokens of a prompt's text. A chat template writes special tokens itself; raw text starts with BOS."""
        token_ids = self.encode(prompt)
        if self._chat_template is None and self._begins_with_bos():
            return [cast("int", self._tokenizer.bos_token_id), *token_ids]
        return token_ids

    def conversation_token_ids(self, messages: list[Message]) -> list[int]:
        """The tokens of a whole conversation, which ends with the assistant's answer, as a reward model reads it."""
        return self.encode(self.text(messages, to_complete=False))

    def survives(self, text: str) -> bool:
        """True if a completion that spells `text` still has it once its control tokens are left out."""
        return text in VisibleText(self._tokenizer).of(self.encode(text))

    def encode(self, text: str) -> list[int]:
        """The tokens of the text alone, without any that the tokenizer adds around a text.

        Raises ValueError for half of a character (a lone surrogate), which no tokenizer takes.
        """
        if half := SURROGATE.search(text):
            raise ValueError(
                f"the text has half of a character, {half[0]!a}, at {half.start()}, as a cut emoji leaves it; mend it"
            )
        return cast("list[int]", self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _begins_with_bos(self) -> bool:
        """True if the tokenizer begins every text with BOS. An EOS that it appends would end the prompt, and is not."""
        bos = self._tokenizer.bos_token_id
        return bos is not None and bos in cast("list[int]", self._tokenizer("")["input_ids"])


def raw_text(messages: list[Message]) -> str:
    """Contents one after the other: an answer follows its question directly, anything else after a blank line.

    >>> raw_text([{"role": "system", "content": "Add."}, {"role": "user", "content": "Q: 1 + 1? A:"},
    ...           {"role": "assistant", "content": " 2"}, {"role": "user", "content": "Q: 2 + 3? A:"}])
    'Add.\\n\\nQ: 1 + 1? A: 2\\n\\nQ: 2 + 3? A:'
    """
    text = ""
    for message in messages:
        separator = "\n\n" if text and message["role"] != "assistant" else ""
        text += separator + message["content"]
    return text


def _chat_template(tokenizer: PreTrainedTokenizerBase, template: ChatTemplate) -> str:
    """The Jinja text that renders conversations. Raises ValueError if neither the config nor the model has any."""
    own = template.jinja()
    if own is None and not tokenizer.chat_template:
        raise ValueError(
            "template: the model has no chat template, as base models do: set prompts.template.raw=true, which gives "
            "it plain text, or prompts.template.chat_template=FILE.jinja; in a tuning run the keys are rows.template.*"
        )
    return tokenizer.get_chat_template(own)


def _check_arguments(tokenizer: PreTrainedTokenizerBase, chat_template: str, names: list[str]) -> None:
    reserved = inspect.signature(tokenizer.apply_chat_template).parameters.keys() - {"tools", "documents", "kwargs"}
    for name in names:
        if name in reserved:
            raise ValueError(f"template.chat_template_kwargs.{name}: rlframe sets this argument itself; leave it out")
        if not re.search(rf"\b{re.escape(name)}\b", chat_template):
            raise ValueError(f"template.chat_template_kwargs.{name}: the chat template never reads it; leave it out")


def _roles(messages: list[Message]) -> str:
    return ", ".join(message["role"] for message in messages)
