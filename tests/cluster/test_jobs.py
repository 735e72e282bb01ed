"""Runs that are submitted to a real cluster with a token: words, exit codes, files, secrets, lost connections."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import psutil
import pytest
import requests

from rlframe.cluster.dashboard import NODES, Dashboard
from rlframe.cluster.jobs import Jobs, Submission
from rlframe.train.checkpoint import newest_whole
from tests.conftest import tiny_overrides
from tests.tiny.cut_wire import CutWire
from tests.tiny.jobs_cluster import JobsCluster, jobs_cluster
from tests.tiny.nodes import FIRST_IP

JOB = re.compile(r"^(rlframe-[0-9a-f]{8})  ", re.MULTILINE)
# A reward of the user's own, which works only where the node's secret is, and a module that it imports.
MY_REWARDS = """
from my_words import LETTERS
from rlframe.record.secrets import secret
from rlframe.reward import Reward


class Letters(Reward):
    def __call__(self, prompt, completion) -> float:
        assert len(secret("RLFRAME_TEST_KEY")) == 35
        return sum(completion.text.count(letter) for letter in LETTERS) / max(1, len(completion.text))
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[JobsCluster]:
    with TemporaryDirectory(prefix="ray") as folder, jobs_cluster(Path(folder)) as started:
        yield started


@pytest.fixture
def jobs(cluster: JobsCluster) -> Jobs:
    headers = {"Authorization": f"Bearer {cluster.token}"}
    return Jobs(Dashboard(address=cluster.url, headers=headers, warnings=[]))


@pytest.fixture
def laptop(tmp_path: Path) -> Path:
    """A working directory with the user's own files."""
    folder = tmp_path / "laptop"
    folder.mkdir()
    (folder / "my_rewards.py").write_text(MY_REWARDS)
    (folder / "my_words.py").write_text('LETTERS = "aeiou"\n')
    lines = [json.dumps({"question": f"What is {n} + {n}?", "answer": f"#### {2 * n}"}) for n in range(20)]
    (folder / "sums.jsonl").write_text("\n".join(lines))
    return folder


def shell_job(command: str, **changes: float | dict[str, str]) -> Submission:
    """A job that is no run."""
    settings = {"run_dir": "/nowhere", "files": {}, "env_vars": {}, "stop_timeout_s": 5, "driver_cpus": 0}
    return Submission(**{"entrypoint": command, "driver_labels": {}} | settings | changes)  # pyright: ignore[reportArgumentType]


def wait_for_rows(metrics: Path, count: int) -> None:
    deadline = time.monotonic() + 300
    while not metrics.exists() or metrics.read_text().count("\n") < count:
        assert time.monotonic() < deadline, f"{metrics} has no row {count}"
        time.sleep(0.1)


def test_a_submitted_run_trains_and_leaves_no_secret(
    cluster: JobsCluster, laptop: Path, tmp_path: Path, tiny_model: Path
) -> None:
    """The node's secrets are in no file, log, command line and answer, and nowhere in W&B's files."""
    run_dir = tmp_path / "run"
    settings = [
        *tiny_overrides(tiny_model)[:-1],
        "learner.ranks=1",
        "steps=2",
        "checkpoint.every=1",
        "evaluate.every=0",
    ]
    settings += [
        "+reward.terms.letters={name: 'my_rewards:Letters', weight: 1.0}",
        "prompts=jsonl",
        "prompts.overlap=drop",
    ]
    settings += ["prompts.train.path=sums.jsonl", "prompts.heldout.path=sums.jsonl", "prompts.heldout.offset=16"]
    settings += ["prompts.max_tokens=256"]
    settings += ["tracking=wandb", "tracking.mode=offline", "secrets=[WANDB_API_KEY, RLFRAME_TEST_KEY]"]
    pytest.importorskip("wandb", reason="an optional extra")
    command = [sys.executable, "-m", "rlframe.cli", "submit", *settings, f"run_dir={run_dir}"]
    log = tmp_path / "log"
    with log.open("wb") as output:
        submit = subprocess.Popen(command, cwd=laptop, env=cluster.laptop, stdout=output, stderr=output)
    seen: set[str] = set()
    while submit.poll() is None:
        seen |= {" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])}
        time.sleep(0.5)
    assert submit.returncode == 0, log.read_text()[-3000:]
    assert len((run_dir / "metrics.jsonl").read_text().splitlines()) == 2
    assert list(run_dir.glob("wandb/offline-run-*/*.wandb"))
    answer = requests.get(f"{cluster.url}/api/jobs/", headers={"Authorization": f"Bearer {cluster.token}"}, timeout=10)
    texts = [log.read_bytes(), answer.content, "\n".join(seen).encode()]
    files = [file for folder in (run_dir, cluster.folder, laptop) for file in folder.rglob("*") if file.is_file()]
    assert {"config.yaml", "runtime_env_agent.log", "state.json"} <= {file.name for file in files}
    texts += [file.read_bytes() for file in files]
    for name, value in [*cluster.planted.items(), ("token", cluster.token)]:
        assert sum(value.encode() in text for text in texts) == 0, name
    table = cluster.rlframe("jobs", folder=tmp_path).stdout
    assert re.search(rf"{run_dir}  2/2   +0\.\d+ +succeeded  \d", table), table


def test_a_wrong_model_there_has_the_words_and_code_of_here(cluster: JobsCluster, laptop: Path, tmp_path: Path) -> None:
    here = cluster.rlframe("train", "model.path=/nowhere", f"run_dir={tmp_path}/run", folder=laptop)
    there = cluster.rlframe("submit", "model.path=/nowhere", f"run_dir={tmp_path}/run", folder=laptop)
    assert here.returncode == there.returncode == 2
    [words] = [line for line in here.stderr.splitlines() if "model.path" in line and "job" not in line]
    assert words.startswith("  model.path: /nowhere: there is no such Hugging Face folder")
    assert words in there.stdout.splitlines()


@pytest.mark.long
def test_a_stopped_run_leaves_a_checkpoint_and_goes_on(
    cluster: JobsCluster, laptop: Path, tmp_path: Path, tiny_model: Path
) -> None:
    run_dir, steps, job_id = tmp_path / "run", 0, ""
    settings = [*tiny_overrides(tiny_model), "learner.ranks=1", "steps=100000", "checkpoint.every=100000"]
    settings.append("evaluate.every=0")
    for _ in range(2):
        sent = cluster.rlframe("submit", "--no-wait", *settings, f"run_dir={run_dir}", folder=laptop)
        [job_id] = JOB.findall(sent.stdout)
        wait_for_rows(run_dir / "metrics.jsonl", steps + 1)
        time.sleep(random.random() * 2)
        again = cluster.rlframe("submit", *settings, f"run_dir={run_dir}", folder=laptop)
        assert again.returncode == 2 and f"is the folder of {job_id}, which is running" in again.stderr
        stop = cluster.rlframe("stop", job_id, folder=laptop)
        assert stop.returncode == 0, stop.stdout + stop.stderr
        checkpoint = newest_whole(run_dir / "checkpoints", pytest.fail)
        assert checkpoint is not None
        told, taken = str(checkpoint), int(checkpoint.name.removeprefix("step_"))
        assert stop.stdout.endswith(f"stopped after step {taken}; checkpoint: {told}\n")
        assert taken > steps
        steps = taken
    ended = cluster.rlframe("stop", job_id, folder=laptop)
    assert ended.returncode == 2 and f"{job_id}: it has ended already (stopped)" in ended.stderr


def test_a_sweep_is_a_job_for_each_combination(cluster: JobsCluster, jobs: Jobs, laptop: Path, tmp_path: Path) -> None:
    before = {job.id for job in jobs.all()}
    settings = ["-m", "model.path=/nowhere", "learner.lr=1e-6,2e-6", f"run_dir={tmp_path}/sweep"]
    sent = cluster.rlframe("submit", *settings, folder=laptop)
    assert sent.returncode == 0, sent.stderr
    ids = JOB.findall(sent.stdout)
    assert set(ids) == {job.id for job in jobs.all()} - before
    assert [jobs.get(job_id).run_dir for job_id in ids] == [f"{tmp_path}/sweep/0", f"{tmp_path}/sweep/1"]
    rates = [re.search(r"learner\.lr=(\S+)", jobs._client.get_job_info(job_id).entrypoint) for job_id in ids]
    assert [rate and rate[1] for rate in rates] == ["1e-06", "2e-06"]
    for job_id in ids:
        jobs.wait(job_id, 240)


def test_the_output_is_whole_after_a_lost_connection(cluster: JobsCluster) -> None:
    """The wire is cut once the third line is there, and mended three seconds later."""
    printed, warned = [], []
    port = urlsplit(cluster.url).port
    assert port is not None
    with CutWire(port) as wire:
        headers = {"Authorization": f"Bearer {cluster.token}"}
        jobs = Jobs(Dashboard(address=f"http://127.0.0.1:{wire.port}", headers=headers, warnings=[]))
        job_id = jobs.submit(shell_job("for n in $(seq 12); do echo line $n; sleep 0.5; done; exit 3"))

        def write(text: str) -> None:
            printed.append(text)
            if "line 3\n" in text and not warned:
                wire.cut()

        def warn(text: str) -> None:
            warned.append(text)
            if text.startswith("lost"):
                time.sleep(3)
                wire.mend()

        job = jobs.follow(job_id, write, warn)
    assert job.state == "FAILED" and job.exit_code == 3
    lines = [line for line in "".join(printed).splitlines() if re.fullmatch(r"line \d+", line)]
    assert lines == [f"line {number}" for number in range(1, 13)]
    assert len(warned) == 2 and warned[0].endswith("; the job goes on") and warned[1] == "the connection is back"


def test_a_driver_waits_for_a_node_with_its_labels(cluster: JobsCluster, jobs: Jobs, tmp_path: Path) -> None:
    """The node has the label rlframe.io/role: head, and no label of a market."""
    fits = jobs.submit(shell_job("exit 0", driver_cpus=1, driver_labels={"rlframe.io/role": "head"}))
    assert jobs.wait(fits, 240).state == "SUCCEEDED"
    nowhere = jobs.submit(shell_job("exit 0", driver_labels={"rlframe.io/role": "elsewhere"}))
    time.sleep(2)
    assert jobs.get(nowhere).state == "PENDING"
    stop = cluster.rlframe("stop", nowhere, folder=tmp_path)
    assert stop.returncode == 0 and f"{nowhere}: no node has started it yet" in stop.stdout


def test_what_the_cluster_refuses_is_refused_before_anything_is_sent(
    cluster: JobsCluster, jobs: Jobs, laptop: Path, tmp_path: Path
) -> None:
    before = jobs.all()
    wrong = tmp_path / "wrong"
    wrong.write_text("0" * 64)
    wrong.chmod(0o644)
    refused = subprocess.run(
        [sys.executable, "-m", "rlframe.cli", "submit", "model.path=/nowhere", f"run_dir={tmp_path}"],
        env=cluster.laptop | {"RAY_AUTH_TOKEN_PATH": str(wrong)}, cwd=laptop, capture_output=True, text=True,
    )  # fmt: skip
    assert refused.returncode == 2
    assert (
        f"cluster.address: {cluster.url} refuses the token of this machine; set RAY_AUTH_TOKEN_PATH" in refused.stderr
    )
    assert f"! {wrong}: other users of this machine may read the cluster's token" not in refused.stdout
    no_token = {name: value for name, value in cluster.laptop.items() if name != "RAY_AUTH_TOKEN_PATH"}
    missing = subprocess.run(
        [sys.executable, "-m", "rlframe.cli", "jobs"],
        env=no_token | {"HOME": str(tmp_path)}, cwd=laptop, capture_output=True, text=True,
    )  # fmt: skip
    assert missing.returncode == 2 and "asks for a token" in missing.stderr
    unknown = cluster.rlframe("stop", "rlframe-00000000", folder=laptop)
    assert unknown.returncode == 2 and "has no such job; `rlframe jobs` lists those it has" in unknown.stderr
    assert jobs.all() == before


def test_the_cluster_tells_the_addresses_of_its_nodes(cluster: JobsCluster) -> None:
    """By them an open cluster behind a tunnel is known."""
    headers = {"Authorization": f"Bearer {cluster.token}"}
    answer = requests.get(f"{cluster.url}{NODES}", headers=headers, timeout=10).json()
    assert [node["node_ip"] for node in answer["data"]["result"]["result"]] == [FIRST_IP]


def test_a_job_of_someone_else_is_no_job_of_rlframes(cluster: JobsCluster, jobs: Jobs) -> None:
    other = jobs._client.submit_job(entrypoint="exit 0")
    assert other not in {job.id for job in jobs.all()}
