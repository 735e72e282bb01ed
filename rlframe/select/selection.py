"""`select`: two passes over the inputs. The first decides by small records, the second writes the chosen bodies.

1. Each line is dropped for the first reason that applies, or becomes a `Candidate` of its conversation.
2. Conversations are chosen from once all lines are known: a prompt may be in several files and runs.
3. The inputs are read again, and each chosen line becomes a row, or a half of a pair.
"""

from __future__ import annotations

import math
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b

from rlframe.errors import ConfigError
from rlframe.prompts.overlap import digest
from rlframe.rows.types import Assessment, Comparison, Demonstration, Row
from rlframe.select.choices import Candidate, Pair, choose, pairs, unfit
from rlframe.select.config import GradePairs, LengthPairs, SelectConfig, within
from rlframe.select.filters import Filters
from rlframe.select.heldout import HeldOut
from rlframe.select.items import Input, Item, question_of, read_inputs
from rlframe.types import Message

HELD_OUT, DUPLICATE, PASS_RATE = "held out", "duplicate", "pass rate"
NOT_CHOSEN, NO_PARTNER = "not chosen", "no partner"
KEPT = "kept"
NAMED = 3  # held-out items that are named
KINDS: dict[type[Row], str] = {
    Demonstration: "a demonstration",
    Comparison: "a comparison",
    Assessment: "an answer with labels",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Decisions:
    """The result of the first pass. Counts of a source add up to its items.

    {"runs/first": {"kept": 120, "cut off": 8, "reward": 64}}
    """

    counts: dict[str, Counter[str]]
    kept: set[int]  # positions of items that become demonstrations, or stay as rows
    pairs: list[Pair]
    held_out: list[str]  # places of the first NAMED items that are held out

    @property
    def total(self) -> Counter[str]:
        return sum(self.counts.values(), Counter())


class FirstPass:
    """Reads items one by one, and keeps a `Candidate` of each completion that passes the filters."""

    def __init__(self, config: SelectConfig, held_out: HeldOut) -> None:
        self._config = config
        self._held_out = held_out
        self._filters = Filters(config.keep)
        self._counts: dict[str, Counter[str]] = {source: Counter() for source in config.sources}
        self._rated: defaultdict[bytes, list[int]] = defaultdict(lambda: [0, 0])  # conversation -> right and scored
        self._prompts: defaultdict[bytes, list[tuple[str, Candidate]]] = defaultdict(list)  # with their sources
        self._answers: set[bytes] = set()
        self._held: dict[tuple[bytes, int], bool] = {}  # conversation and number of its questions -> held out
        self._named: list[str] = []
        self._kept: set[int] = set()
        self._completions = self._cut_off = 0
        self._rewards: dict[str, None] = {}  # names of all rewards that judged a completion

    def add(self, index: int, source: str, item: Item) -> None:
        """Raises ValueError for an item that cannot be judged, ConfigError for a row of the wrong kind."""
        conversation = digest(item.messages)
        score = item.score(self._config.right.verdict)
        right = None if score is None else score >= self._config.right.least
        if right is not None:
            self._rated[conversation][0] += right
            self._rated[conversation][1] += 1
        if item.completion is not None:
            self._completions += 1
            self._rewards |= dict.fromkeys(item.completion.verdicts)
            self._cut_off += item.completion.finish_reasons[0] == "length"
        answer = _answer_digest(conversation, item.text, right, self._config.duplicates)
        if reason := self._filters.reason(item) or self._against_others(item, conversation, answer):
            self._counts[source][reason] += 1
            return
        self._answers.add(answer)
        if item.completion is None:
            _check_kind(item, self._config)
            self._counts[source][KEPT] += 1
            self._kept.add(index)
        else:
            candidate = _candidate(index, item, right, answer, self._config)
            self._prompts[conversation].append((source, candidate))

    def decide(self) -> Decisions:
        """Chooses from each conversation. Raises ConfigError for an unknown reward, or too many cut off."""
        unknown = [name for name in self._config.rewards() if name not in self._rewards]
        if self._completions and unknown:
            known = ", ".join(self._rewards) or "no reward"
            raise ConfigError(f"no reward {unknown[0]!r} scored any completion; there is {known}")
        if self._cut_off > self._config.max_truncated * self._completions:
            raise ConfigError(
                f"max_truncated: {self._cut_off} of {self._completions} completions were cut off at the greatest "
                "length, so the others favour short answers; draw again with more tokens, or set max_truncated=1.0"
            )
        all_pairs: list[Pair] = []
        for conversation, candidates in self._prompts.items():
            reasons, prompt_pairs = _decided([c for _, c in candidates], self._rated[conversation], self._config)
            all_pairs += prompt_pairs
            for (source, candidate), reason in zip(candidates, reasons, strict=True):
                self._counts[source][reason] += 1
                if reason == KEPT and not prompt_pairs:
                    self._kept.add(candidate.position)
        return Decisions(counts=self._counts, kept=self._kept, pairs=all_pairs, held_out=self._named)

    def _against_others(self, item: Item, conversation: bytes, answer: bytes) -> str | None:
        """The reason against an item beside held-out questions and earlier items."""
        questions = item.questions
        key = conversation, len(questions)
        if key not in self._held:
            self._held[key] = any(map(self._held_out.holds, questions))
        if self._held[key]:
            self._named += [item.where] if len(self._named) < NAMED else []
            return HELD_OUT
        return DUPLICATE if self._config.duplicates != "none" and answer in self._answers else None


def decide(config: SelectConfig, inputs: list[Input], held_out: HeldOut) -> Decisions:
    """The first pass over all inputs. Raises ValueError as `read_inputs`, and as `FirstPass` does."""
    first = FirstPass(config, held_out)
    for index, (source, item) in enumerate(read_inputs(inputs)):
        first.add(index, source, item)
    return first.decide()


def rows(
    config: SelectConfig, inputs: list[Input], decisions: Decisions, tokenizer_of: Callable[[str], str | None]
) -> Iterator[Row]:
    """The rows, in the order of the inputs; a pair is where its later half is. Raises ValueError as `read_inputs`.

    `tokenizer_of`: source -> digest of the tokenizer that made its token ids; None: unknown, and they are left out.
    """
    pairs_of: defaultdict[int, list[Pair]] = defaultdict(list)  # by the position of a half
    for pair in decisions.pairs:
        for candidate in (pair.chosen, pair.rejected):
            pairs_of[candidate.position].append(pair)
    waiting: dict[int, Item] = {}  # halves of pairs whose other half is not read yet
    for index, (source, item) in enumerate(read_inputs(inputs)):
        if index in decisions.kept:
            yield item.row or _demonstration(item, tokenizer_of(source), config)
        if index in pairs_of:
            waiting[index] = item
        for pair in list(pairs_of.get(index, [])):
            chosen, rejected = pair.chosen.position, pair.rejected.position
            if chosen in waiting and rejected in waiting:
                yield _comparison(waiting[chosen], waiting[rejected], pair, config)
                for half in (chosen, rejected):
                    pairs_of[half].remove(pair)
                    if not pairs_of[half]:
                        del waiting[half]


def _decided(candidates: list[Candidate], rated: list[int], config: SelectConfig) -> tuple[list[str], list[Pair]]:
    """KEPT or a reason against each candidate of a prompt, and the prompt's pairs."""
    right, scored = rated
    if config.keep.pass_rate is not None and not (scored and within(right / scored, config.keep.pass_rate)):
        return [PASS_RATE] * len(candidates), []
    choice = config.select
    if isinstance(choice, LengthPairs | GradePairs):
        prompt_pairs = pairs(candidates, choice)
        paired = {half.position for pair in prompt_pairs for half in (pair.chosen, pair.rejected)}
        return [KEPT if candidate.position in paired else NO_PARTNER for candidate in candidates], prompt_pairs
    chosen = {candidate.position for candidate in choose(candidates, choice)}
    reasons = [unfit(candidate, choice) or NOT_CHOSEN for candidate in candidates]
    return [
        KEPT if candidate.position in chosen else reason for candidate, reason in zip(candidates, reasons, strict=True)
    ], []


def _candidate(index: int, item: Item, right: bool | None, answer: bytes, config: SelectConfig) -> Candidate:
    """Raises ValueError for a completion without what the choice compares: token ids or grades."""
    choice = config.select
    grades: tuple[float, ...] = ()
    if isinstance(choice, GradePairs):
        scores = [item.score(verdict) for verdict in choice.verdicts or [None]]
        grades = tuple(math.nan if score is None else score for score in scores)
    by_length = isinstance(choice, LengthPairs) or choice.name == "shortest"
    if item.tokens is None and (by_length or (isinstance(choice, GradePairs) and choice.length_ratio is not None)):
        raise ValueError(f"{item.where}: the completion has no token ids, so select={choice.name} cannot compare it")
    return Candidate(index, item.score(None), item.tokens, right, answer, grades)


def _demonstration(item: Item, tokenizer: str | None, config: SelectConfig) -> Demonstration:
    """The completion as a row, with its tokens if the digest of their `tokenizer` is known."""
    token_ids = item.token_ids if tokenizer else []
    return Demonstration(
        id=item.where,
        messages=_messages(item, config),
        answer=item.text,
        task=item.task,
        source=item.where,
        token_ids=token_ids or None,
        tokenizer=tokenizer if token_ids else None,
    )


def _messages(item: Item, config: SelectConfig) -> list[Message]:
    return [{"role": "user", "content": question_of(item.messages)}] if config.question_only else item.messages


def _comparison(chosen: Item, rejected: Item, pair: Pair, config: SelectConfig) -> Comparison:
    return Comparison(
        id=f"{chosen.where} > {rejected.where}",
        messages=_messages(chosen, config),
        chosen=chosen.text,
        rejected=rejected.text,
        margin=pair.margin,
        task=chosen.task,
        source=f"{chosen.where} > {rejected.where}",
    )


def _answer_digest(conversation: bytes, text: str, right: bool | None, duplicates: str) -> bytes:
    """[16] of a conversation and an answer; normalised: "It is 5." and "it is  5." have the same.

    A right answer and a wrong one never have: "1 2" and "1  2" may be two answers to a reward.
    """
    if duplicates == "normalised":
        text = " ".join(unicodedata.normalize("NFC", text).casefold().split())
    return blake2b(
        conversation + text.encode(errors="surrogatepass"), digest_size=16, person=str(right).encode()
    ).digest()


def _check_kind(item: Item, config: SelectConfig) -> None:
    """Raises ConfigError for a written row of another kind than the selection makes."""
    wanted = Comparison if isinstance(config.select, LengthPairs | GradePairs) else Demonstration
    if item.row is not None and not isinstance(item.row, wanted):
        raise ConfigError(
            f"sources: {item.where} is {KINDS[type(item.row)]}, and select={config.select.name} writes "
            f"{'comparisons' if wanted is Comparison else 'demonstrations'}"
        )
