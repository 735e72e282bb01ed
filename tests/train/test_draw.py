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
from rlframe.train.draw import Part, draw_parts, read_parts
from rlframe.types import ScoredGroup
from tests.tiny.episodes import PAIR, TinyEngine, make_pool
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


def draw(scorer: Scorer, path: Path, size: int, write: Callable[[DrawFolder, Part, list[ScoredGroup]], None]) -> None:
    folder = DrawFolder(path, {"part": size})
    missing = folder.missing(-(-PROBLEMS // size))
    parts = read_parts(make_stream(), range(PROBLEMS), size, missing)
    try:
        draw_parts(parts, scorer, PAIR, lambda part, groups: write(folder, part, groups))
    finally:
        folder.close()


def save(folder: DrawFolder, part: Part, groups: list[ScoredGroup]) -> None:
    folder.save(part.number, groups, DrawCounts(prompts=len(groups)))


@pytest.mark.parametrize("seed", range(6))
def test_killed_and_resumed_draws_hold_every_prompt_once(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch):
    chance = random.Random(seed)
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
                draw(scorer, tmp_path, size, save)
                break
            except Killed:
                deaths += 1
                chance.choice([*tmp_path.glob("part_*.gz"), tmp_path / "none"]).unlink(missing_ok=True)
        monkeypatch.setattr(Path, "replace", replace)
    files = sorted(tmp_path.glob("part_*.jsonl.gz"))
    assert [file.name for file in files] == [part_name(number + 1) for number in range(-(-PROBLEMS // size))]
    drawn = Counter(record["prompt_id"] for file in files for record in read_json_lines(file))
    assert drawn == {f"o{place}@0": PAIR.completions for place in range(PROBLEMS)}
    assert DrawFolder(tmp_path, {"part": size}).finish().prompts == PROBLEMS and deaths > 0


def test_two_parts_are_in_memory_at_most(tmp_path: Path):
    alive: list[int] = []

    def note(folder: DrawFolder, part: Part, groups: list[ScoredGroup]) -> None:
        del groups
        alive.append(sum(type(each) is ScoredGroup for each in gc.get_objects()))

    gc.collect()
    before = sum(type(each) is ScoredGroup for each in gc.get_objects())
    with open_scorer() as scorer:
        draw(scorer, tmp_path, 2, note)
    assert len(alive) == 10 and max(alive) - before <= 4
