"""`rlframe draw` as a user runs it: killed and repeated with engines, and by a real endpoint without a model."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from threading import Thread

import psutil
import pytest
from aiohttp import web

from rlframe.cli.draw import unused
from rlframe.record import rollouts
from rlframe.rows.files import read_rows
from rlframe.rows.types import Assessment
from tests.conftest import tiny_overrides
from tests.tiny.endpoint import endpoint

RLFRAME = [sys.executable, "-m", "rlframe.cli"]
TIMEOUT_S = 420
PROMPTS, PART = 24, 2


def rlframe(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | variables
    return subprocess.run([*RLFRAME, *arguments], capture_output=True, text=True, timeout=TIMEOUT_S, env=environment)


def parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("part_*.jsonl.gz"))


def test_sampling_of_training_has_no_effect_on_a_draw_and_says_so():
    overrides = ["rollout.temperature=0.6", "rollout.max_tokens=9", "draw.top_p=0.9", "+rollout.group_size=4"]
    assert unused(overrides) == [
        "rollout.temperature is for training; a draw samples by draw.temperature",
        "rollout.group_size is for training; a draw samples by draw.samples",
    ]


def test_a_killed_draw_goes_on_with_its_missing_parts(tiny_model: Path, tmp_path: Path):
    folder = tmp_path / "draw"
    sampling = ["draw.samples=2", "draw.max_tokens=200", "draw.reward=brevity", f"draw.part={PART}"]
    settings = [*tiny_overrides(tiny_model), f"prompts.train.size={PROMPTS}", *sampling, f"draw.dir={folder}"]
    with (tmp_path / "console").open("wb") as console:
        driver = subprocess.Popen([*RLFRAME, "draw", *settings], stdout=console, stderr=console)
    deadline = time.monotonic() + TIMEOUT_S
    while not parts(folder):
        assert driver.poll() is None and time.monotonic() < deadline, (tmp_path / "console").read_text()
        time.sleep(0.05)
    offspring = psutil.Process(driver.pid).children(recursive=True)
    driver.kill()
    driver.wait()
    psutil.wait_procs(offspring, timeout=30)
    whole = {file: file.stat().st_mtime_ns for file in parts(folder)}
    assert len(whole) < PROMPTS // PART

    again = rlframe("draw", *settings)
    assert again.returncode == 0, again.stderr[-3000:]
    assert len(parts(folder)) == PROMPTS // PART
    assert {file: file.stat().st_mtime_ns for file in whole} == whole
    groups = rollouts.read(folder, limit=None)
    assert len({group.group.prompt.id for group in groups}) == len(groups) == PROMPTS
    assert all(len(group.rewards) == 2 and max(group.lengths) <= 200 for group in groups)
    total = json.loads((folder / "draw.json").read_text())["total"]
    assert (total["prompts"], total["completions"]) == (PROMPTS, 2 * PROMPTS)
    assert total["tokens"] == sum(sum(group.lengths) for group in groups)

    tried = rlframe("reward", "try", "format", "--rollouts", str(folder))
    assert tried.stdout.startswith(f"{2 * PROMPTS} completions: "), tried.stderr


@pytest.mark.long
def test_steps_of_drawn_completions_get_labels(tiny_model: Path, tmp_path: Path):
    """Completions go on behind each "e" of the first ones, and rows have a label for each piece."""
    sampling = ["prompts.train.size=8", "draw.samples=2", "draw.max_tokens=200", "draw.reward=brevity"]
    changes = ["draw.separator=e", "draw.prompts=6", "draw.samples=3", "draw.part=4"]
    first, folder = tmp_path / "first", tmp_path / "steps"
    for settings in ([f"draw.dir={first}"], [*changes, f"draw.continue_from={first}", f"draw.dir={folder}"]):
        done = rlframe("draw", *tiny_overrides(tiny_model), *sampling, *settings)
        assert done.returncode == 0, done.stderr[-3000:]
    groups = {group.group.prompt.id: group for group in rollouts.read(folder, None)}
    rows = [row for row in read_rows(folder / "rows.jsonl") if isinstance(row, Assessment)]
    assert len(groups) == 6 and len(rows) > 0
    for row in rows:
        for number, label in enumerate(row.labels[:-1], start=1):
            group = groups[f"{row.id}/{number}"]
            before = "".join(row.steps[:number])
            assert all(completion.text.startswith(before) for completion in group.group.completions)
            assert label == any((verdict.score or 0) >= 1 for verdict in group.verdicts["brevity"])
    index = json.loads((folder / "draw.json").read_text())
    assert index["rows"]["rows"] == len(rows) and index["total"]["completions"] == 18


@pytest.fixture
def server() -> Iterator[str]:
    """The URL of an endpoint that answers "5", and every third request not at all."""
    requests = count()

    async def answer(request: web.Request) -> web.Response:
        if next(requests) % 3 == 0:
            return web.Response(status=503, headers={"retry-after-ms": "20"})
        if request.headers["Authorization"] != "Bearer right-key":
            return web.Response(status=401)
        message = {"content": "<answer>5</answer>", "reasoning_content": "2 + 3"}
        choice = {"message": message, "finish_reason": "stop"}
        return web.json_response({"choices": [choice], "usage": {"completion_tokens": 7}})

    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever, daemon=True)
    thread.start()
    serving = endpoint(answer)
    url, _ = asyncio.run_coroutine_threadsafe(serving.__aenter__(), loop).result()
    yield url
    asyncio.run_coroutine_threadsafe(serving.__aexit__(None, None, None), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


def test_an_endpoint_draws_without_a_model_or_an_engine(server: str, tmp_path: Path):
    folder = tmp_path / "draw"
    served = [f"draw.endpoint.base_url={server}", "draw.endpoint.model=big", "draw.endpoint.key_env=DRAW_TEST_KEY"]
    settings = [*served, "draw.prompts=5", "draw.part=2", "draw.samples=2", "cluster.object_store_gib=0.25"]
    done = rlframe("draw", *settings, f"draw.dir={folder}", DRAW_TEST_KEY="right-key")
    assert done.returncode == 0, done.stderr[-3000:]
    assert [len(rollouts.read(folder, None)), len(parts(folder))] == [5, 3]
    completion = rollouts.read(folder, 1)[0].group.completions[0]
    assert completion.text == "<think>2 + 3</think><answer>5</answer>" and not len(completion.token_ids)
    assert json.loads((folder / "draw.json").read_text())["total"]["tokens"] == 5 * 2 * 7
    assert "right-key" not in (folder / "draw.json").read_text() + (folder / "config.yaml").read_text()
    selected = rlframe("select", str(folder), f"out={tmp_path / 'rows.jsonl'}", "select.per_prompt=1")
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert selected.returncode == 0 and len(rows) == 5 and "token_ids" not in rows[0]
