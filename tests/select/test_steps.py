"""Steps of completions, prompts behind them, and labels by what follows."""

from __future__ import annotations

import random
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from rlframe.select.items import read_items
from rlframe.select.steps import StepPrompts, cut
from tests.tiny.drawn import drawn, text_of, write_part


def cut_pieces(separator: str, *pieces: bytes) -> tuple[list[str], list[int]]:
    """The steps of a completion whose tokens spell these pieces."""
    return cut(spell(pieces, range(len(pieces))), list(range(len(pieces))), separator, lambda ids: spell(pieces, ids))


def spell(pieces: Any, token_ids: Any) -> str:
    return b"".join(pieces[token_id] for token_id in token_ids).decode(errors="replace")


@pytest.mark.parametrize(
    ("separator", "pieces", "steps", "ends"),
    [
        ("\n", (b"2+3=5", b"\n", b"5+4=9", b"\n"), ["2+3=5\n", "5+4=9\n"], [2]),
        ("\n", (b"\n", b"a", b"\n", b" \n", b"b", b".\n\n"), ["\na\n \n", "b.\n\n"], [4]),
        ("\n", (b"a", b"\nb", b"c\n", b"d"), ["a\nb", "c\n", "d"], [2, 3]),  # a token reaches over the end
        ("\n", (b"a\nb\nc", b"\nd"), ["a\nb\nc", "\nd"], [1]),  # two ends in one token
        ("\n", (b"\xc3", b"\xa9\n", b"\xc3\xa9"), ["é\n", "é"], [2]),
        ("\n", (b"a\n\xf0\x9f", b"\x98", b"\x80", b"b"), ["a\n😀", "b"], [3]),  # a token ends inside a character
        ("。", (b"a\xe3\x80", b"\x82", b"\xe3", b"\x80\x81b"), ["a。", "、b"], [2]),
        ("\n\n", (b"a\n", b"\n", b"\n", b"b\n", b"c"), ["a\n\n", "\nb\nc"], [2]),
        ("ki", (b"ki", b"a", b"k", b"i", b" ki", b"b"), ["kiaki ki", "b"], [5]),
        ("\n", (b"a", b"b"), ["ab"], []),
        ("\n", (b"\n", b"a", b"\n"), ["\na\n"], []),
    ],
)
def test_steps_end_behind_separators_and_whole_tokens(
    separator: str, pieces: tuple[bytes, ...], steps: list[str], ends: list[int]
):
    assert cut_pieces(separator, *pieces) == (steps, ends)


@pytest.mark.parametrize("seed", range(40))
def test_steps_join_to_the_text_and_their_tokens_spell_them(seed: int):
    chance = random.Random(seed)
    text = "".join(chance.choices(["a", "é", "😀", " ", "\n", "\n\n", "."], k=30)).encode()
    places = sorted({0, len(text), *chance.sample(range(len(text)), 12)})
    pieces = [text[start:end] for start, end in pairwise(places)]
    steps, ends = cut_pieces("\n", *pieces)
    assert "".join(steps) == text.decode() and len(steps) == len(ends) + 1
    for number, end in enumerate(ends, start=1):
        assert b"".join(pieces[:end]).decode() == "".join(steps[:number])
    assert len(steps) == 1 or all(step.strip() for step in steps)
    assert all(re.search(r"\n", step) for step in steps[:-1])


def test_tokens_of_another_tokenizer_are_refused():
    with pytest.raises(ValueError, match="spell another text"):
        cut("a\nb", [97, 10, 99], "\n", text_of)


def line(text: str, reward: float | None, question: str = "q") -> dict[str, Any]:
    return drawn(question, text, reward=reward, tokens=list(text.encode()))


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """Two completions of three steps and one of two; four that cannot be continued."""
    (tmp_path / "first").mkdir()
    lines = [line("a\nb\nc", 1.0), line("a\nb", 0.0), line("one step", 1.0), line("a\nb", None)]
    lines += [drawn("q", "a\nb", reward=1.0, tokens=0), line("a\nb", 1.0, "r"), line("a\nb\nd", 0.5, "r")]
    write_part(tmp_path / "first" / "part_000001.jsonl.gz", lines)
    return tmp_path / "first"


def open_steps(folder: Path, **bounds: int) -> StepPrompts:
    return StepPrompts(str(folder), "math", "\n", text_of, **({"max_prompt_tokens": 2, "max_tokens": 8} | bounds))


def test_a_prompt_is_the_original_one_with_the_steps_before(first: Path):
    stream = open_steps(first)
    prompts = [stream.at(position) for position in range(len(stream))]
    assert [(prompt.id, bytes(prompt.prefix)) for prompt in prompts] == [
        ("q@0/0/1", b"a\n"),
        ("q@0/0/2", b"a\nb\n"),
        ("q@0/1/1", b"a\n"),
        ("r@0/0/1", b"a\n"),
        ("r@0/1/1", b"a\n"),
        ("r@0/1/2", b"a\nb\n"),
    ]
    assert {(tuple(prompt.token_ids), prompt.messages[0]["content"]) for prompt in prompts[:3]} == {((1, 2), "q")}
    assert stream.at(1) == prompts[1]
    skipped = {"of one step": 1, "without a score": 1, "without token ids": 1}
    assert stream.counts == Counter(skipped | {"continued": 4})


@pytest.mark.parametrize(("soft", "label"), [(False, 1.0), (True, 0.25)])
def test_a_label_says_how_many_continuations_are_right(first: Path, tmp_path: Path, soft: bool, label: float):
    scores: dict[str, list[float | None]] = {
        "q@0/0/1": [0.0, 1.0, 0.5, 0.0],
        "q@0/0/2": [0.0, 0.0],
        "q@0/1/1": [None, None],  # no verdict at all; r@0/0/1 is given up
        "r@0/1/1": [None, 1.0],
        "r@0/1/2": [0.0],
    }
    drawn_lines = [line("x", score) | {"prompt_id": name} for name, row in scores.items() for score in row]
    (tmp_path / "second").mkdir()
    write_part(tmp_path / "second" / "part_000001.jsonl.gz", drawn_lines)
    counts: Counter[str] = Counter()
    rows = list(open_steps(first).rows(read_items(str(tmp_path / "second")), 6, soft=soft, counts=counts))
    assert [(row.id, row.steps, row.labels) for row in rows] == [
        ("q@0/0", ["a\n", "b\n", "c"], [label, 0.0, 1.0]),
        ("r@0/1", ["a\n", "b\n", "d"], [1.0, 0.0, 0.0]),
    ]
    assert rows[1].source == f"{first / 'part_000001.jsonl.gz'}:7" and rows[1].messages[0]["content"] == "r"
    assert counts == {"rows": 2, "with a step without a verdict": 2}


def test_a_draw_of_some_prompts_labels_their_completions(first: Path, tmp_path: Path):
    (tmp_path / "second").mkdir()
    drawn_lines = [line("x", 1.0) | {"prompt_id": name} for name in ("q@0/0/1", "q@0/0/2")]
    write_part(tmp_path / "second" / "part_000001.jsonl.gz", drawn_lines)
    counts: Counter[str] = Counter()
    rows = list(open_steps(first).rows(read_items(str(tmp_path / "second")), 2, soft=False, counts=counts))
    assert [row.labels for row in rows] == [[1.0, 1.0, 1.0]] and counts == {"rows": 1}


def test_what_no_engine_could_continue_is_refused(first: Path, tmp_path: Path):
    with pytest.raises(ValueError, match=r"gz:1 has 5 tokens, more than draw\.max_tokens = 4; raise draw"):
        open_steps(first, max_tokens=4)
    with pytest.raises(ValueError, match=r"gz:1 has 2 tokens, more than prompts\.max_tokens = 1; raise prompts"):
        open_steps(first, max_prompt_tokens=1)
    with pytest.raises(ValueError, match="has no completion to continue: 5 of one step, 1 without a score, 1 without"):
        StepPrompts(str(first), "math", "#", text_of, max_prompt_tokens=2, max_tokens=8)
    with pytest.raises(ValueError, match="there is no file or folder"):
        open_steps(tmp_path / "none")
