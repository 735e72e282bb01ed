"""The GPU check in its small form on a CPU, and what it makes of parts that fail, hang, or cannot run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import gpu_check
from benchmarks.flops import QWEN3_0_6B
from benchmarks.gpu_parts import PARTS, Figure, Part, Skip, engine
from benchmarks.gpu_parts.engine import ON_GPUS
from rlframe.cluster.placement import placement

LEARNER_PARTS = [name for name, part in PARTS.items() if part.module != "engine" and not part.needs_gpu]
# The learner's parts run on machines with torch, transformers and DeepSpeed alone.
ABSENT = ["ray", "vllm", "hydra", "omegaconf", "xxhash", "peft", "datasets", "rich", "openai", "pytest"]


def check(folder: Path, *arguments: str, absent: list[str]) -> dict[str, dict]:
    """Rows of the table of `gpu_check.py --small`, by part, where packages are `absent`."""
    for package in absent:
        (folder / f"{package}.py").write_text(f"raise ImportError('{package} is not here')")
    command = [sys.executable, gpu_check.__file__, "--small", "--json", str(folder / "table.json"), *arguments]
    finished = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(folder)}, capture_output=True, text=True, timeout=560
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return {row["name"]: row for row in json.loads((folder / "table.json").read_text())["parts"]}


def figures(row: dict) -> dict[str, float]:
    return {figure["name"]: figure["value"] for figure in row["figures"]}


@pytest.mark.long
def test_the_learner_s_parts_need_no_ray_or_vllm(tmp_path: Path):
    arguments = [argument for name in LEARNER_PARTS for argument in ("--only", name)]
    table = check(tmp_path, *arguments, absent=ABSENT)
    assert {name: row["outcome"] for name, row in table.items()} == dict.fromkeys(LEARNER_PARTS, "passed")
    resumed = figures(table["resume"])
    assert resumed["tensors that this step left as they were"] == 0
    assert resumed["tensors of the state"] == 24 * 4  # master, two moments and a step counter of each parameter
    assert figures(table["step"])["groups of 8: speed"] > 0


@pytest.mark.long
def test_an_engine_agrees_with_the_learner_after_each_step(tmp_path: Path):
    table = check(tmp_path, "--only", "engine", absent=[])
    assert table["engine"]["outcome"] == "passed" and figures(table["engine"])["steps"] == 3


@pytest.mark.parametrize("cards, part", [(1, "engine"), (1, "ipc"), (1, "experts"), *((2, part) for part in ON_GPUS)])
def test_the_runs_on_gpus_pass_every_check_of_their_config(
    cards, part, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr("torch.cuda.device_count", lambda: cards)
    (tmp_path / "model").mkdir()
    QWEN3_0_6B.save_pretrained(tmp_path / "model")
    slots = placement(engine.composed(tmp_path, engine.on_gpus(part)))
    assert len(slots["rollout"]) == len(slots["learner"]) == 1


def test_the_parts_that_need_a_gpu_are_skipped_without_one(tmp_path: Path):
    names = [name for name, part in PARTS.items() if part.needs_gpu]
    table = check(tmp_path, *[argument for name in names for argument in ("--only", name)], absent=[])
    assert {name: row["reason"] for name, row in table.items()} == dict.fromkeys(names, "needs a GPU")


def answer_of(monkeypatch: pytest.MonkeyPatch, folder: Path, run) -> dict:
    """What the process of a part leaves in its file."""
    monkeypatch.setattr(Part, "run", lambda part, small: run())
    gpu_check.run_part(PARTS["publish"], True, folder / "answer.json")
    return json.loads((folder / "answer.json").read_text())


def test_a_part_that_raises_keeps_its_figures_and_the_traceback_s_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def run() -> Iterator[Figure]:
        yield Figure("speed", 3.0)
        raise ValueError("no such kernel")

    answer = answer_of(monkeypatch, tmp_path, run)
    assert answer["figures"][0]["value"] == 3.0 and answer["skipped"] == ""
    assert answer["error"].splitlines()[-1] == "ValueError: no such kernel"


def test_a_part_may_skip_itself_with_a_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def run() -> Iterator[Figure]:
        raise Skip("needs two GPUs")
        yield

    answer = answer_of(monkeypatch, tmp_path, run)
    assert answer == {"figures": [], "skipped": "needs two GPUs", "error": ""}


def test_a_part_that_takes_too_long_is_ended_and_failed():
    result = gpu_check.in_process("publish", PARTS["publish"]._replace(limit_s=0.2), 600.0, small=True)
    assert (result.outcome, result.reason.splitlines()[0]) == ("failed", "not done in 0.2 s")


def test_all_parts_together_take_ten_minutes_at_most():
    assert gpu_check.TOTAL_S == 600
    part = PARTS["publish"]._replace(limit_s=1.0)
    result = gpu_check.in_process("publish", part, 0.6, small=True)
    assert result.reason.splitlines()[0] == "not done in 0.6 s"
    result = gpu_check.in_process("publish", part, 0.4, small=True)
    assert (result.outcome, result.reason) == ("skipped", "0 s are left; run it alone by --only publish")


@pytest.mark.parametrize("value, holds", [(0.9, False), (1.0, True), (2.0, True), (2.1, False), (float("nan"), False)])
def test_a_figure_holds_within_its_bounds(value, holds):
    assert Figure("error", value, at_least=1.0, at_most=2.0).holds == holds


def test_a_line_of_the_table_says_what_bound_was_missed():
    figure = Figure("pack", 1.25, "GiB/s", at_least=5)
    assert str(figure) == "pack 1.25 GiB/s (NOT at least 5)"
