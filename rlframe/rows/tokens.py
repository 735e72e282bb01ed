"""`RowEncoder`: the answers of a row as the tokens that an engine would see and sample."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from rlframe.prompts.rendering import Renderer
from rlframe.rows.records import REASONING
from rlframe.rows.types import Comparison, Demonstration, Row
from rlframe.types import Completion, Message, Trajectory, Turn, VersionSpan

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from rlframe.prompts.template import ChatTemplate

Turns = Literal["last", "all"]

MARK, THOUGHT_MARK = "⟨answer⟩", "⟨thought⟩"  # texts that a chat template shows the place of
THOUGHTS = "think|thinking|thought|thoughts|reason|reasoning"  # names of tags
OPENED = re.compile(rf"<({THOUGHTS})>\s*\Z")  # at the end of a prompt: the template has opened the thoughts
CLOSED = re.compile(rf"</({THOUGHTS})>\s*\Z")  # likewise: the template has closed them again
CLOSED_ALONE = re.compile(r"(?:(?!<think>).)*?</think>", re.DOTALL)  # in an answer: thoughts without their opening tag
EMPTY_THOUGHTS = re.compile(rf"\s*(<({THOUGHTS})>)?\s*</(think|\2)>")  # at the beginning of an answer


class RowEncoder:
    """Encodes answers apart from the conversation before them, and never renders an answer inside a conversation.

    The prompt is what an engine gets, the completion what it samples. Under Qwen3's template with its thinking off:

        prompt      <|im_start|>user\\nWhat is 2 + 3?<|im_end|>\\n<|im_start|>assistant\\n<think>\\n\\n</think>\\n\\n
        completion  5<|im_end|>

    Sampled tokens of the same tokenizer are taken as they are, since other tokens may spell the same text. Where
    prompt and answer both open the thoughts, since another chat template was sampled with, the text counts.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, template: ChatTemplate, turns: Turns, stop_ids: set[int]
    ) -> None:
        """`turns`: the answer alone, or also every earlier turn of the assistant. `stop_ids`: see `end_token_ids`.

        Raises ValueError for a template that the tokenizer does not have or read, and a model without an end token.
        """
        self._renderer = Renderer(tokenizer, template)
        self._turns = turns
        self._digest = tokenizer_digest(tokenizer)
        self._vocabulary = len(tokenizer)
        self.end_id = self._end_id(tokenizer, stop_ids, raw=template.raw)
        self._stop_ids = stop_ids | {self.end_id}

    def trajectories(self, row: Row) -> list[Trajectory]:
        """The answer of a demonstration, or the two of a comparison, the chosen one first. Raises as `trajectory`."""
        if isinstance(row, Demonstration):
            return [self.trajectory(row)]
        assert isinstance(row, Comparison), "labels are learned by a head with a score"
        shared = {"id": row.id, "messages": row.messages, "task": row.task, "source": row.source}
        return [self.trajectory(Demonstration(answer=answer, **shared)) for answer in (row.chosen, row.rejected)]

    def prompts(self, row: Row) -> list[list[Message]]:
        """The conversation before each turn to train on."""
        roles = enumerate(message["role"] for message in row.messages)
        earlier = [at for at, role in roles if role == "assistant" and at and self._turns == "all"]
        return [*(row.messages[:at] for at in earlier), row.messages]

    def trajectory(self, row: Demonstration) -> Trajectory:
        """The turns to train on. A turn whose prompt begins with an earlier turn's tokens continues it.

        With `turns=all`, a template that keeps answers gives a chain of turns, and a template that strips thoughts from
        earlier turns gives turns apart. Raises ValueError, which names the row, for an answer that contradicts its
        prompt.
        """
        answer = {"role": "assistant", "content": row.answer}
        conversation = [*row.messages, answer | ({REASONING: row.reasoning} if row.reasoning else {})]
        last = len(conversation) - 1
        turns: list[Turn] = []
        paths: list[list[int]] = []  # of each turn, all tokens up to its end
        for before in self.prompts(row):
            at = len(before)
            try:
                prompt = self._renderer.text(before)
                prompt_ids = self._renderer.prompt_token_ids(prompt)
                text = self._spelled(before, conversation[at], prompt)
                token_ids = self._sampled_ids(row) if at == last and text == row.answer else None
                token_ids = token_ids or self._completion_ids(text)
            except ValueError as error:
                raise ValueError(f"row {row.id}: {error}") from error
            parents = [index for index, path in enumerate(paths) if prompt_ids[: len(path)] == path]
            parent = max(parents, default=None, key=lambda index: len(paths[index]))
            observed = prompt_ids if parent is None else prompt_ids[len(paths[parent]) :]
            turns.append(written_turn(parent, observed, token_ids, conversation[at]["content"]))
            paths.append(prompt_ids + token_ids)
        return Trajectory(turns=turns)

    def _sampled_ids(self, row: Demonstration) -> list[int] | None:
        """The row's own tokens; None where it has none of this tokenizer."""
        if row.token_ids is None or row.tokenizer != self._digest:
            return None
        if unknown := [token_id for token_id in row.token_ids if not 0 <= token_id < self._vocabulary]:
            raise ValueError(
                f"token_ids holds {unknown[0]}, which is none of the tokenizer's {self._vocabulary} tokens; leave "
                "token_ids and tokenizer out"
            )
        return row.token_ids

    def _completion_ids(self, text: str) -> list[int]:
        if EMPTY_THOUGHTS.match(text):
            raise ValueError(
                "the answer begins with an empty block of thoughts, which the policy would learn to write; leave it "
                "out, and let the chat template write it: rows.template.chat_template_kwargs={enable_thinking: false}"
            )
        token_ids = self._renderer.encode(text)
        if not self._stop_ids.isdisjoint(token_ids):
            raise ValueError("the answer holds the token that ends it; leave it out, since rlframe adds it")
        return [*token_ids, self.end_id]

    def _spelled(self, before: list[Message], answer: Message, prompt: str) -> str:
        """The completion's text: the answer behind its thoughts, without an opening tag that the prompt has written."""
        text = answer["content"]
        if answer.get(REASONING):
            text = self._with_thoughts(before, answer, prompt)
        if opened := OPENED.search(prompt):
            space = re.escape(opened[0].partition(">")[2])
            text = re.sub(rf"\A\s*<{opened[1]}>(?:{space})?", "", text)
            if f"</{opened[1]}>" not in text:
                raise ValueError(
                    f"the chat template opens <{opened[1]}> in the prompt, and the answer never closes it; write "
                    f"thoughts and </{opened[1]}> before the answer, or set another rows.template"
                )
        elif CLOSED.search(prompt) and re.match(r"\s*<think>", text):
            raise ValueError(
                "the answer has thoughts, and the prompt ends with a closed block of thoughts; leave out "
                "rows.template.chat_template_kwargs.enable_thinking=false, or the thoughts"
            )
        elif CLOSED_ALONE.match(text):
            raise ValueError(
                "the answer closes thoughts that neither it nor the prompt opens, as an answer drawn under a chat "
                "template that opens them; write <think> before them"
            )
        return text

    def _with_thoughts(self, before: list[Message], answer: Message, prompt: str) -> str:
        """Thoughts and content as the chat template writes them behind the prompt."""
        marked = {"role": "assistant", "content": MARK, REASONING: THOUGHT_MARK}
        whole = self._renderer.text([*before, marked], to_complete=False)
        opening, found, rest = whole.removeprefix(prompt).partition(THOUGHT_MARK)
        between, answered, _ = rest.partition(MARK)
        if not whole.startswith(prompt) or not found or not answered:
            raise ValueError(
                f"the chat template has no place for {REASONING} behind this prompt; write the thoughts into the "
                "answer's content, as <think>...</think>, or set another rows.template"
            )
        return opening + answer[REASONING] + between + answer["content"]

    def _end_id(self, tokenizer: PreTrainedTokenizerBase, stop_ids: set[int], *, raw: bool) -> int:
        """The token that the template writes after an answer, if an engine stops at it; else the tokenizer's own."""
        if not raw:
            messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": MARK}]
            behind = self._renderer.text(messages, to_complete=False).rpartition(MARK)[2]
            if ends := [token_id for token_id in self._renderer.encode(behind) if token_id in stop_ids]:
                return ends[0]
        if not isinstance(tokenizer.eos_token_id, int):
            raise ValueError("the model's tokenizer has no end token, so an engine would never stop; add an eos_token")
        return tokenizer.eos_token_id


def end_token_ids(model_path: Path, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """The tokens at which an engine stops: the tokenizer's end token, and those of generation_config.json."""
    file = model_path / "generation_config.json"
    ends = json.loads(file.read_text()).get("eos_token_id") if file.is_file() else None
    listed = ends if isinstance(ends, list) else [ends]
    return {token_id for token_id in [*listed, tokenizer.eos_token_id] if isinstance(token_id, int)}


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Equal for tokenizers in which every token id means the same text."""
    vocabulary = json.dumps(sorted(tokenizer.get_vocab().items()))
    return hashlib.sha256(vocabulary.encode()).hexdigest()[:16]


def written_turn(parent: int | None, observed: list[int], token_ids: list[int], text: str = "") -> Turn:
    """A turn whose completion is `token_ids`, which may be empty."""
    completion = Completion(
        token_ids=np.asarray(token_ids, np.int32),
        logprobs=np.zeros(len(token_ids), np.float32),  # written, not sampled
        versions=[VersionSpan(version=0, start=0, end=len(token_ids))] if token_ids else [],
        text=text,
        finish_reason="stop",
    )
    return Turn(parent=parent, observed=np.asarray(observed, np.int32), completion=completion)
