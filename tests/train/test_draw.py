"""Draws: every prompt once whatever dies, two parts in memory at most, and completions of a real endpoint."""

from __future__ import annotations

import gc
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rlframe.actors.background import Background
from rlframe.experience.scoring import Scorer
from rlframe.record.draws import DrawCounts, DrawFolder, part_name
from rlframe.record.files import read_json_lines
from rlframe.select.items import read_items
from rlframe.select.steps import StepPrompts
from rlframe.train.draw import AnyStream, Part, draw_parts, read_parts
from rlframe.types import ScoredGroup
from tests.tiny.drawn import drawn, text_of, write_part
from tests.tiny.episodes import PAIR, TOKENS, TinyEngine, make_pool
from tests.tiny.feed import PROBLEMS, make_stream


class Killed(Exception):
    """The death of the process, at any instruction."""


@contextmanager
def open_scorer() -> Iterator[Scorer]:
    background = Background("draw", stall_timeout_s=60)
    pool = make_pool([TinyEngine()], slots=4)
    with Scorer(pool, background, slots=4, warn=print) as scorer:
        yield scorer
    background.run(pool.close())
    background.close()


def step_prompts(folder: Path) -> StepPrompts:
    """Prompts of prefixes of 2 and 4 tokens of 10 completions, in two files."""
    folder.mkdir(exist_ok=True)
    for part in range(2):
        lines = [drawn(f"{part}", "1\n2\n3", reward=1.0, tokens=list(b"1\n2\n3")) for _ in range(5)]
        write_part(folder / f"part_{part:06d}.jsonl.gz", lines)
    return StepPrompts(str(folder), "math", "\n", text_of, max_prompt_tokens=9, max_tokens=9)


def draw(
    scorer: Scorer,
    path: Path,
    size: int,
    write: Callable[[DrawFolder, Part, list[ScoredGroup]], None],
    stream: AnyStream | None = None,
) -> None:
    stream = stream or make_stream()
    folder = DrawFolder(path, {"part": size})
    missing = folder.missing(-(-PROBLEMS // size))
    parts = read_parts(stream, range(len(stream)), size, missing)
    try:
        draw_parts(parts, scorer, PAIR, lambda part, groups: write(folder, part, groups))
    finally:
        folder.close()


def save(folder: DrawFolder, part: Part, groups: list[ScoredGroup]) -> None:
    folder.save(part.number, groups, DrawCounts(prompts=len(groups)))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("steps", [False, True])
def test_killed_and_resumed_draws_hold_every_prompt_once(
    tmp_path: Path, seed: int, steps: bool, monkeypatch: pytest.MonkeyPatch
):
    path, chance = tmp_path / "draw", random.Random(seed)
    stream = step_prompts(tmp_path / "first") if steps else make_stream()
    prompts = [stream.at(position).id for position in range(PROBLEMS)]
    assert len(set(prompts)) == len(stream) == PROBLEMS
    size, deaths, renames = chance.randint(1, 8), 0, iter(range(1000))
    replace = Path.replace

    def dies(source: Path, target: Path) -> Path:
        if next(renames) == seed or chance.random() < 0.08:
            raise Killed
        return replace(source, target)

    with open_scorer() as scorer:
        monkeypatch.setattr(Path, "replace", dies)
        while True:
            try:
                draw(scorer, path, size, save, stream)
                break
            except Killed:
                deaths += 1
                chance.choice([*path.glob("part_*.gz"), path / "none"]).unlink(missing_ok=True)
        monkeypatch.setattr(Path, "replace", replace)
    files = sorted(path.glob("part_*.jsonl.gz"))
    assert [file.name for file in files] == [part_name(number + 1) for number in range(-(-PROBLEMS // size))]
    records = [record for file in files for record in read_json_lines(file)]
    assert [record["prompt_id"] for record in records] == [name for name in prompts for _ in range(PAIR.completions)]
    assert DrawFolder(path, {"part": size}).finish().prompts == PROBLEMS and deaths > 0
    if isinstance(stream, StepPrompts):
        begins = [bytes(record["turns"][0]["token_ids"][:-TOKENS]) for record in records]
        assert begins == [b"1\n", b"1\n", b"1\n2\n", b"1\n2\n"] * 10
        rows = stream.rows(read_items(str(path)), PROBLEMS, soft=True, counts=Counter())
        assert [row.labels for row in rows] == [[0.5, 0.5, 1.0]] * 10  # one of two continuations is right


@pytest.mark.parametrize("steps", [False, True])
def test_two_parts_are_in_memory_at_most(tmp_path: Path, steps: bool):
    stream = step_prompts(tmp_path / "first") if steps else None
    alive: list[int] = []

    def note(folder: DrawFolder, part: Part, groups: list[ScoredGroup]) -> None:
        del groups
        alive.append(sum(type(each) is ScoredGroup for each in gc.get_objects()))

    gc.collect()
    before = sum(type(each) is ScoredGroup for each in gc.get_objects())
    with open_scorer() as scorer:
        draw(scorer, tmp_path / "draw", 2, note, stream)
    reading = 2 if steps else 0  # the completion whose steps are prompts, and the next one
    assert len(alive) == 10 and max(alive) - before <= 4 + reading
