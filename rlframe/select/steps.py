"""`StepPrompts`: prompts that go on behind the steps of scored completions, and the rows that continuations label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby, islice

from rlframe.prompts.steps import TextOf, cut
from rlframe.rows.types import Assessment
from rlframe.select.items import Item, read_items
from rlframe.types import Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Stepped:
    """A completion of two steps or more, which the deciding reward has judged."""

    name: str  # the prompt's id and the index in the group: "arithmetic/7@0/3"
    item: Item
    prompt: Prompt
    steps: list[str]  # texts, which join to the completion's text
    ends: list[int]  # the completion's tokens up to the end of each step but the last
    right: bool

    def prompts(self) -> list[Prompt]:
        """A prompt for each step but the last: every completion of "arithmetic/7@0/3/1" begins with the first step."""
        token_ids = self.item.token_ids
        return [
            replace(self.prompt, id=f"{self.name}/{number}", prefix=token_ids[:end])
            for number, end in enumerate(self.ends, start=1)
        ]


class StepPrompts:
    """Prompts behind each step but the last of scored completions, in the order of a folder; used as a `PromptStream`.

    Labels by sampling are Math-Shepherd's (Wang et al., 2023, arXiv:2312.08935): a step is as good as the answers that
    follow it. Of eight continuations behind a step, three are right: the label is 1 (hard), or 3 / 8 (soft). Files are
    read as prompts are asked for, with one completion in memory.
    """

    def __init__(
        self, folder: str, reward: str, separator: str, text_of: TextOf, *, max_prompt_tokens: int, max_tokens: int
    ) -> None:
        """Reads the folder once. `reward` decides what is right; `max_tokens`: of the longest completion.

        Raises ValueError for a folder without any prompt, for tokens beyond the bounds, and for tokens that do not
        spell the completion's text, as under another tokenizer.
        """
        self.folder = folder
        self.reward = reward
        self.separator = separator
        self.text_of = text_of
        self.max_prompt_tokens = max_prompt_tokens
        self.max_tokens = max_tokens
        self.counts: Counter[str] = Counter()  # completions, by the reason for which they are skipped, or "continued"
        self._length = sum(len(stepped.ends) for stepped in self._read(self.counts))
        if not self._length:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.counts.items()) or "it is empty"
            raise ValueError(f"{folder} has no completion to continue: {reasons}")
        self._ahead, self._position = self._prompts(), 0

    def __len__(self) -> int:
        return self._length

    def at(self, position: int) -> Prompt:
        """The prompt at a position. Positions in ascending order read each file once."""
        if position < self._position:
            self._ahead, self._position = self._prompts(), 0
        prompt = next(islice(self._ahead, position - self._position, None))
        self._position = position + 1
        return prompt

    def rows(self, drawn: Iterable[Item], count: int, *, soft: bool, counts: Counter[str]) -> Iterator[Assessment]:
        """A row for each completion whose steps all have a label; `counts` gets the rows, and the others.

        `drawn`: continuations of the first `count` prompts in their order, perhaps without some prompts.
        """
        continuations = groupby(drawn, key=_prompt_id)
        prompt_id, group = next(continuations, (None, ()))
        for stepped in self._read(Counter()):
            if count <= 0:
                return
            count -= len(stepped.ends)
            labels: list[float | None] = []
            for prompt in stepped.prompts():
                scores: list[float | None] = []
                if prompt.id == prompt_id:
                    scores = [item.score(self.reward) for item in group]
                    prompt_id, group = next(continuations, (None, ()))
                labels.append(label(scores, soft=soft))
            known = [each for each in labels if each is not None]
            if len(known) < len(labels):
                counts["with a step without a verdict"] += 1
                continue
            counts["rows"] += 1
            yield Assessment(
                id=stepped.name,
                messages=stepped.item.messages,
                steps=stepped.steps,
                labels=[*known, float(stepped.right)],
                task=stepped.item.task,
                source=stepped.item.where,
            )

    def _prompts(self) -> Iterator[Prompt]:
        return (prompt for stepped in self._read(Counter()) for prompt in stepped.prompts())

    def _read(self, counts: Counter[str]) -> Iterator[Stepped]:
        """Every completion that can be continued. `counts`: of completions."""
        for prompt_id, group in groupby(read_items(self.folder), key=_prompt_id):
            for index, item in enumerate(group):
                stepped = self._stepped(f"{prompt_id}/{index}", item)
                counts[stepped if isinstance(stepped, str) else "continued"] += 1
                if not isinstance(stepped, str):
                    yield stepped

    def _stepped(self, name: str, item: Item) -> Stepped | str:
        """The completion in steps, or the reason for which it cannot be continued."""
        if item.completion is None or len(item.completion.group.trajectories[0].turns) > 1:
            return "several turns" if item.completion else "written rows"
        if not item.token_ids:
            return "without token ids"
        if (score := item.score(self.reward)) is None:
            return "without a score"
        prompt = item.completion.group.prompt
        for tokens, key, bound in (
            (len(prompt.token_ids), "prompts.max_tokens", self.max_prompt_tokens),
            (len(item.token_ids), "draw.max_tokens", self.max_tokens),
        ):
            if tokens > bound:
                raise ValueError(f"{item.where} has {tokens} tokens, more than {key} = {bound}; raise {key}")
        try:
            steps, ends = cut(item.text, item.token_ids, self.separator, self.text_of)
        except ValueError as error:
            raise ValueError(f"{item.where}: {error}") from None
        if not ends:
            return "of one step"
        return Stepped(name=name, item=item, prompt=prompt, steps=steps, ends=ends, right=score >= 1)


def label(scores: Iterable[float | None], *, soft: bool) -> float | None:
    """The label of a step by the scores of its continuations; None: none has a verdict."""
    right = [score >= 1 for score in scores if score is not None]
    if not right:
        return None
    return sum(right) / len(right) if soft else float(any(right))


def _prompt_id(item: Item) -> str:
    return item.completion.group.prompt.id if item.completion else item.where
