"""The judge's verdicts: grades from a real vLLM server, and failures of endpoints."""

import asyncio
import itertools
import json
import os
import random
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from aiohttp import web

from rlframe.reward.judge import Judge
from tests.tiny.endpoint import (
    KEY,
    KEY_ENV,
    PROMPT,
    TERM,
    Handler,
    Script,
    completion,
    endpoint,
    grade,
    grade_at,
    graded,
    reply,
)

SERVER_START_S = 240  # 25 s on two quiet cores

# A real vLLM server -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vllm_url(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """vLLM's OpenAI server on the tiny random model, with a key."""
    port = free_port()
    log = tmp_path_factory.mktemp("vllm") / "server.log"
    # One process schedules and computes, as in the CPU engines of a run.
    env = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_API_KEY": KEY}
    arguments = f"--served-model-name tiny --host 127.0.0.1 --port {port} --dtype float32 --enforce-eager".split()
    arguments += ["--no-enable-chunked-prefill", "--max-num-batched-tokens", "2048", "--max-model-len", "2048"]
    arguments += ["--hf-overrides", json.dumps({"max_position_embeddings": 2048})]  # a byte is a token
    arguments += ["--distributed-executor-backend", "uni"]
    # A random model would fill the gaps between a schema's tokens with white space.
    arguments += ["--structured-outputs-config", json.dumps({"backend": "xgrammar", "disable_any_whitespace": True})]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(tiny_model), *arguments]
    with log.open("wb") as output:
        server = subprocess.Popen(command, env=env, stdout=output, stderr=subprocess.STDOUT)
    try:
        wait_until_healthy(server, f"http://127.0.0.1:{port}/health", log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        end(server)


def free_port() -> int:
    """A port that no connection of another process takes by itself while the server starts."""
    for port in random.sample(range(20_000, 32_768), 100):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise RuntimeError("100 ports between 20000 and 32767 are taken")


def wait_until_healthy(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + SERVER_START_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"vLLM's server did not start; exit status {server.poll()}:\n{log.read_text()[-3000:]}")


def end(server: subprocess.Popen[bytes]) -> None:
    """SIGTERM to the server, then SIGKILL to surviving processes."""
    processes = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
    server.terminate()
    _, alive = psutil.wait_procs(processes, timeout=20)
    for process in alive:
        process.kill()
    server.wait(timeout=10)


def test_a_random_model_under_guided_decoding_grades_in_whole_tenths(vllm_url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(KEY_ENV, KEY)
    request = {"temperature": 1.0}
    texts = [f"it is {n}" for n in range(24)]
    verdicts = grade(*texts, base_url=vllm_url, key_env=KEY_ENV, request=request, timeout_s=60.0)
    assert [verdict.status for verdict in verdicts] == ["scored"] * 24, [v.detail for v in verdicts]
    tenths = [round(10 * (verdict.score or 0.0), 9) for verdict in verdicts]
    assert set(tenths) <= set(range(11))
    assert len(set(tenths)) > 2
    for tenth, verdict in zip(tenths, verdicts, strict=True):
        assert verdict.detail.startswith(f"{tenth:g}/10: ")


@pytest.mark.parametrize(
    ("changes", "key", "what"),
    [
        ({"request": {"max_completion_tokens": 5}}, KEY, "finish_reason 'length'"),
        ({"model": "other"}, KEY, "NotFoundError"),
        ({}, "wrong-key", "AuthenticationError"),
    ],
)
def test_a_refused_or_truncated_request_is_our_failure(
    vllm_url: str, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], key: str, what: str
):
    monkeypatch.setenv(KEY_ENV, key)
    [verdict] = grade("5", base_url=vllm_url, key_env=KEY_ENV, timeout_s=60.0, **changes)
    assert (verdict.score, verdict.status) == (None, "failed")
    assert what in verdict.detail and vllm_url in verdict.detail


# Endpoints that fail ----------------------------------------------------------------------------------------------


def test_an_unreachable_endpoint_is_a_failure_that_names_the_endpoint():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))  # nobody listens on this port
        url = f"http://127.0.0.1:{probe.getsockname()[1]}/v1"
        [verdict] = grade("5", base_url=url, timeout_s=60.0)
    assert (verdict.score, verdict.status) == (None, "failed")
    assert f"judge 'tiny' at {url}: APIConnectionError" in verdict.detail
    assert verdict.seconds < 30


def waits(log: pytest.LogCaptureFixture, script: Script) -> list[float]:
    """Seconds that the client announced as waits. The real gaps are at least as long: a busy machine adds to them."""
    announced = [record.args[0] for record in log.records if record.msg.startswith("Retrying request in")]
    gaps = [later - earlier for earlier, later in itertools.pairwise(script.times)]
    assert all(gap >= wait for gap, wait in zip(gaps, announced, strict=True))
    return announced


def test_the_wait_after_a_second_server_error_is_twice_as_long(caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO", logger="openai")
    script = Script(lambda: web.Response(status=500), lambda: web.Response(status=503), graded)
    [verdict], _ = grade_at(script, "5", attempts=3)
    assert (verdict.score, verdict.detail) == (0.7, "7/10: fine")
    first, second = waits(caplog, script)
    assert 0.375 <= first <= 0.5 and 0.75 <= second <= 1  # 0.5 s and 1 s, less at most a quarter


def test_after_429_the_client_waits_as_long_as_the_endpoint_says(
    caplog: pytest.LogCaptureFixture,
):
    caplog.set_level("INFO", logger="openai")
    script = Script(lambda: web.Response(status=429, headers={"Retry-After": "2"}), graded)
    [verdict], _ = grade_at(script, "5", attempts=2)
    assert verdict.score == 0.7
    assert waits(caplog, script) == [2.0]


@pytest.mark.parametrize(("status", "calls"), [(400, 1), (401, 1), (404, 1), (429, 2), (500, 2)])
def test_errors_that_no_retry_can_mend_are_not_retried(status: int, calls: int):
    script = Script(lambda: web.Response(status=status, text="no"))
    [verdict], _ = grade_at(script, "5", attempts=2)
    assert (verdict.score, verdict.status) == (None, "failed")
    assert len(script.times) == calls


async def hangs(request: web.Request) -> web.Response:
    await asyncio.sleep(60)
    return graded()


async def trickles(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b" ")
        await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("handler", "attempts"),
    [(hangs, 1), (hangs, 2), (trickles, 1)],
    ids=["hangs", "hangs twice", "trickles"],
)
def test_an_endpoint_that_never_finishes_fails_within_its_bound(handler: Handler, attempts: int):
    [verdict], _ = grade_at(handler, "5", attempts=attempts, timeout_s=0.4)
    assert (verdict.score, verdict.status) == (None, "failed")
    assert 0.4 * attempts <= verdict.seconds < 20  # not a minute
    assert "imeout" in verdict.detail


@pytest.mark.parametrize(
    "body",
    ["", "<html>busy</html>", "[]", "{}", '{"choices": []}', '{"choices": [{"message": {"content": null}}]}'],
)
def test_a_reply_that_is_not_a_chat_completion_is_our_failure(body: str):
    [verdict], _ = grade_at(Script(lambda: web.Response(text=body, content_type="application/json")), "5")
    assert (verdict.score, verdict.status) == (None, "failed")
    assert repr(body) in verdict.detail


@pytest.mark.parametrize(
    "content",
    [
        "7",
        "seven",
        '{"grade": 7}',
        '{"reason": "", "grade": "7"}',
        '{"reason": "", "grade": true}',
        '{"reason": "", "grade": NaN}',
        '{"reason": "", "grade": 11}',
        '{"reason": "", "grade": -1}',
        '{"reason": "", "grade": 7',
    ],
)
def test_a_message_without_a_valid_grade_is_our_failure_and_never_zero(content: str):
    [verdict], _ = grade_at(Script(lambda: reply(content)), "5")
    assert (verdict.score, verdict.status) == (None, "failed")
    assert "no grade in the reply" in verdict.detail


@pytest.mark.parametrize(
    ("content", "score"),
    [
        ('{"reason": "bare \n and \x01", "grade": 7}', 0.7),  # xgrammar lets these characters through
        ('{"grade": 7.5, "reason": ""}', 0.75),
        ('{"reason": "", "grade": 0}', 0.0),
        ('{"reason": "", "grade": 10}', 1.0),
    ],
)
def test_a_score_is_the_grade_over_the_highest_grade(content: str, score: float):
    [verdict], _ = grade_at(Script(lambda: reply(content)), "5")
    assert (verdict.score, verdict.status) == (score, "scored")


def test_an_overlong_reason_is_cut():
    [verdict], _ = grade_at(Script(lambda: graded(reason="x" * 1000)), "5")
    assert verdict.detail == "7/10: " + "x" * 20


# Limits -----------------------------------------------------------------------------------------------------------


def test_600_requests_a_minute_are_a_tenth_of_a_second_apart():
    script, started = Script(graded), time.monotonic()
    verdicts, seconds = grade_at(script, *["5"] * 6, requests_per_minute=600.0)
    assert [verdict.score for verdict in verdicts] == [0.7] * 6
    # Times count from the start: the first request arrives late, as the client needs time to wake up.
    assert all(arrived - started >= 0.0999 * turn for turn, arrived in enumerate(script.times))
    assert seconds < 6  # far below a request's minute


def test_at_most_three_of_nine_requests_are_in_flight():
    in_flight = most = 0

    async def handler(request: web.Request) -> web.Response:
        nonlocal in_flight, most
        in_flight += 1
        most = max(most, in_flight)
        await asyncio.sleep(0.1)
        in_flight -= 1
        return graded()

    verdicts, _ = grade_at(handler, *["5"] * 9, max_concurrent=3)
    assert [verdict.score for verdict in verdicts] == [0.7] * 9
    assert most == 3


def test_close_closes_the_connections():
    async def run() -> tuple[int, int]:
        async with endpoint(Script(graded)) as (url, runner):
            judge = Judge(**TERM | {"base_url": url})
            judge.start()
            await judge(PROMPT, completion("5"))
            assert runner.server is not None
            open_connections = len(runner.server.connections)
            await asyncio.to_thread(judge.close)
            deadline = time.monotonic() + 30
            while runner.server.connections and time.monotonic() < deadline:
                await asyncio.sleep(0.02)
            return open_connections, len(runner.server.connections)

    assert asyncio.run(run()) == (1, 0)
