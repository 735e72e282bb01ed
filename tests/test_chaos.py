"""A small chaos run, and the judges of a large one: what they find in files and figures that are wrong on purpose."""

from __future__ import annotations

import gzip
import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.chaos_parts import faults
from benchmarks.chaos_parts.balance import Balance, check_rollouts
from benchmarks.chaos_parts.engine import length
from benchmarks.chaos_parts.usage import Series
from rlframe.record.directory import RunDir

CHAOS = Path(__file__).parents[1] / "benchmarks" / "chaos.py"
PLAN = "kill rollout, kill driver, stop episodes, kill learner"
TIMEOUT_S = 900.0  # on a busy machine; 90 s on an idle one


@pytest.mark.long
def test_a_run_weathers_four_faults(tmp_path: Path) -> None:
    command = [sys.executable, str(CHAOS), "--plan", PLAN, "--minutes", "12", "--folder", str(tmp_path / "chaos")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "0 violations" in ended.stdout
    assert ended.stdout.count(" step ") >= 4 and "| kill driver | 1 |" in ended.stdout


def test_a_plan_of_200_faults_has_every_kind_in_its_share() -> None:
    counts = Counter(faults.plan(200, random.Random(0), small_disk=True))
    assert counts.total() == 200 and counts.keys() == faults.SHARES.keys()
    for fault, share in faults.SHARES.items():
        assert abs(counts[fault] - 200 * share / sum(faults.SHARES.values())) <= 3
    assert faults.plan(50, random.Random(1), small_disk=False) == faults.plan(50, random.Random(1), small_disk=False)
    assert all(fault.target != "disk" for fault in faults.plan(200, random.Random(0), small_disk=False))


def test_an_unknown_fault_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"there is no fault 'kill moon'; there are: kill rollout, "):
        faults.parse("kill driver, kill moon")


@pytest.fixture
def rows() -> list[dict]:
    """The rollouts of step 3: 4 groups of 4 completions, with tokens of version 1."""
    rows = []
    for number in range(16):
        prompt, tokens = f"o{number // 4}@0", length(f"o{number // 4}@0", number % 4)
        turn = {"token_ids": list(range(tokens)), "versions": [{"version": 1, "start": 0, "end": tokens}]}
        rows.append({"step": 3, "prompt_id": prompt, "reward": 0.5, "verdicts": {}, "turns": [turn]})
    return rows


def judged(rows: list[dict], folder: Path, lines: str = "") -> Balance:
    """The balance of a third step with these rollouts."""
    files, found = RunDir(folder), Balance(steps=3)
    files.rollouts.mkdir()
    with gzip.open(files.rollouts / "step_000003.episodes-0.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    check_rollouts(files, found, lines + "step_000001 step_000002")
    return found


def test_whole_rollouts_are_right(rows: list[dict], tmp_path: Path) -> None:
    found = judged(rows, tmp_path)
    assert (found.wrong, found.completions, found.trained, found.oldest) == ([], 16, 4, 1)


def test_a_token_too_few_is_found(rows: list[dict], tmp_path: Path) -> None:
    del rows[5]["turns"][0]["token_ids"][7]
    [wrong, _] = judged(rows, tmp_path).wrong
    assert wrong.startswith("step 3, completion 1 of o1@0: ")


def test_a_version_too_old_is_found(rows: list[dict], tmp_path: Path) -> None:
    rows[0]["turns"][0]["versions"][0]["version"] = -1
    [wrong] = judged(rows, tmp_path).wrong
    assert wrong.startswith("step 3, completion 0 of o0@0: its tokens are of versions ")


def test_a_lost_completion_must_be_named_on_the_console(rows: list[dict], tmp_path: Path) -> None:
    assert judged(rows[:-1], tmp_path, "step_000003 is not written, since ").missing == [1, 2, 3]
    (tmp_path / "other").mkdir()
    [wrong] = judged(rows[:-1], tmp_path / "other").wrong
    assert "no line of the console says why" in wrong


def test_ten_descriptors_a_minute_are_a_leak_and_one_jump_is_none() -> None:
    leak, jump = Series(role="driver", life=1), Series(role="driver", life=1)
    for number in range(61):
        leak.times.append(5.0 * number)
        jump.times.append(5.0 * number)
        leak.rows.append((100.0, 20.0 + 10 * 5 * number / 60, 8.0, 0.0))
        jump.rows.append((100.0, 20.0 if number < 50 else 60.0, 8.0, 0.0))
    assert leak.slopes()["descriptors"] == pytest.approx(10)
    assert jump.slopes()["descriptors"] == 0
