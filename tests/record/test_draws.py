"""The folder of a draw: it goes on with its own settings only, and its counts add up."""

import json
from pathlib import Path

import pytest

from rlframe.errors import ConfigError
from rlframe.record.draws import DrawCounts, DrawFolder

SETTINGS = {"seed": 0, "draw": {"samples": 8, "part": 512}}


def drawn(folder: Path) -> DrawFolder:
    """A folder with the first of its parts."""
    draw = DrawFolder(folder, SETTINGS)
    draw.save(1, [], DrawCounts(prompts=3, tokens=10, given_up=["a@0"], seconds=2.0))
    draw.close()
    return draw


def test_a_draw_goes_on_with_its_missing_parts(tmp_path: Path):
    drawn(tmp_path)
    again = DrawFolder(tmp_path, SETTINGS)
    assert again.missing(3) == [2, 3]
    again.save(3, [], DrawCounts(prompts=1, tokens=30, given_up=["b@0"], seconds=2.0))
    total = again.finish()
    assert (total.prompts, total.tokens, total.given_up, total.seconds) == (4, 40, ["a@0", "b@0"], 4.0)
    assert json.loads((tmp_path / "draw.json").read_text())["total"]["tokens"] == 40
    assert total.words() == "4 prompts  0 completions  40 tokens  2 given up  10 tok/s"


def test_other_settings_are_refused_by_the_key_that_differs(tmp_path: Path):
    drawn(tmp_path)
    with pytest.raises(ConfigError, match=r"holds a draw with draw\.samples=8, where this command has 4; repeat"):
        DrawFolder(tmp_path, {"seed": 0, "draw": {"samples": 4, "part": 512}})


def test_a_draw_without_a_part_takes_new_settings(tmp_path: Path):
    DrawFolder(tmp_path, SETTINGS).close()
    again = DrawFolder(tmp_path, {"seed": 1})
    again.note_problems(20, "prompts.train")
    with pytest.raises(ConfigError, match=r"from 20 problems, and prompts\.train has 21 now"):
        again.note_problems(21, "prompts.train")


def test_a_folder_of_something_else_is_refused(tmp_path: Path):
    (tmp_path / "metrics.jsonl").touch()
    with pytest.raises(ConfigError, match=r"holds other files, as metrics\.jsonl; choose a new folder"):
        DrawFolder(tmp_path, SETTINGS)


def test_a_folder_has_one_process_at_a_time(tmp_path: Path):
    first = DrawFolder(tmp_path, SETTINGS)
    with pytest.raises(ConfigError, match="another process draws into"):
        DrawFolder(tmp_path, SETTINGS)
    first.close()
    DrawFolder(tmp_path, SETTINGS).close()
