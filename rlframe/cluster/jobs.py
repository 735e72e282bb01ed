"""`Jobs`: the submitted runs of a cluster, through Ray's jobs API.

A job's metadata say that rlframe has submitted it, and the folder of its run. The step and the reward come from the
job's output, since a laptop does not see the run's folder.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobSubmissionClient

import rlframe
from rlframe.cluster.dashboard import Dashboard
from rlframe.config.cluster_checks import STOP_VARIABLE
from rlframe.errors import ConfigError, RunFailed
from rlframe.record.printed import LastRow, read_last_row

MARK, RUN_DIR, STOP_S = "rlframe", "run_dir", "stop_timeout_s"  # keys of a job's metadata
ENDED = {"STOPPED", "SUCCEEDED", "FAILED"}
REQUEST_S = 30.0
SENDING_S = 600.0  # for a package of files
TAIL_LINES = 200
QUIET_S = 20.0  # without output, after which the job's state is asked for
SILENT_S = 120.0  # without output, after which the output is asked for anew: the connection may be half dead
RETRY_S = 2.0
ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")  # Ray takes these before an address that it is given
TALKATIVE = [
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
]
NEVER_SPOT = {"ray.io/market-type": "!spot"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A run that is ready to be sent."""

    run_dir: str
    entrypoint: str  # the job's shell command, in the folder of its files
    files: dict[str, Path]  # path in that folder -> file of this machine
    env_vars: dict[str, str]
    stop_timeout_s: int
    driver_cpus: float
    driver_labels: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A submitted run."""

    id: str
    run_dir: str
    state: str  # PENDING, RUNNING, STOPPED, SUCCEEDED, FAILED
    message: str
    exit_code: int | None  # of the driver
    since: float  # Unix time from which it has the state
    node: str | None  # of the driver
    stop_timeout_s: float  # for the driver's last checkpoint

    @property
    def ended(self) -> bool:
        return self.state in ENDED


class UnknownJob(ConfigError):
    """The cluster has no such job."""


class Jobs:
    """A client of one cluster. Raises requests.RequestException where the cluster does not answer."""

    def __init__(self, dashboard: Dashboard) -> None:
        self.address = dashboard.address
        self._headers = dashboard.headers
        for name in TALKATIVE:
            logging.getLogger(name).setLevel(logging.WARNING)
        with _without(ADDRESS_VARIABLES):
            self._client = _Client(dashboard.address, headers=dict(dashboard.headers))

    def submit(self, submission: Submission) -> str:
        """Sends the files and starts the job -> its id. Raises RunFailed where the cluster does not take them."""
        job_id = f"rlframe-{secrets.token_hex(4)}"
        env_vars = submission.env_vars | {STOP_VARIABLE: str(submission.stop_timeout_s)}
        metadata = {MARK: rlframe.__version__, RUN_DIR: submission.run_dir, STOP_S: str(submission.stop_timeout_s)}
        labels = submission.driver_labels
        if labels or submission.driver_cpus:  # else Ray starts the driver on the head node
            labels = NEVER_SPOT | labels
        with tempfile.TemporaryDirectory() as folder:
            for place, file in submission.files.items():
                target = Path(folder) / place
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)
            try:
                return self._client.submit_job(
                    entrypoint=submission.entrypoint,
                    submission_id=job_id,
                    runtime_env={"env_vars": env_vars, "working_dir": folder},
                    metadata=metadata,
                    entrypoint_num_cpus=submission.driver_cpus or None,
                    entrypoint_label_selector=labels or None,
                )
            except RuntimeError as error:
                raise RunFailed(f"{self.address} does not take the job: {error}") from None

    def all(self) -> list[Job]:
        """Every run that rlframe has submitted, the oldest first."""
        try:
            listed = self._client.list_jobs()
        except RuntimeError as error:
            raise RunFailed(f"{self.address} does not list its jobs: {error}") from None
        jobs = [_job(details) for details in listed if MARK in (details.metadata or {})]
        return sorted(jobs, key=lambda job: job.since)

    def get(self, job_id: str) -> Job:
        """Raises UnknownJob."""
        try:
            details = self._client.get_job_info(job_id)
        except RuntimeError as error:
            if "404" in str(error):
                raise UnknownJob(
                    f"{job_id}: {self.address} has no such job; `rlframe jobs` lists those it has"
                ) from None
            raise requests.ConnectionError(str(error)) from None
        return _job(details)

    def stop(self, job_id: str) -> None:
        """Sends the driver the signal to stop, and returns at once."""
        try:
            self._client.stop_job(job_id)
        except RuntimeError as error:
            raise RunFailed(f"{job_id}: {self.address} does not stop it: {error}") from None

    def wait(self, job_id: str, timeout_s: float) -> Job:
        """The job once it has ended, or as it is after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while True:
            with suppress(requests.RequestException):
                job = self.get(job_id)
                if job.ended or time.monotonic() > deadline:
                    return job
            if time.monotonic() > deadline + REQUEST_S:
                raise RunFailed(f"{self.address} has not answered for {timeout_s:g} s; see `rlframe jobs` later")
            time.sleep(0.3)

    def last_row(self, job: Job) -> LastRow | None:
        """The last step that the job has printed; None before the first, or where the output is gone."""
        return read_last_row(self.tail(job))

    def tail(self, job: Job) -> str:
        """The last lines of the job's output; empty where it is gone, as with the driver's node."""
        params = {"node_id": job.node, "filename": f"job-driver-{job.id}.log", "lines": TAIL_LINES}
        url = f"{self.address}/api/v0/logs/file"
        answer = requests.get(url, params=params, headers=self._headers, timeout=REQUEST_S) if job.node else None
        return answer.text if answer is not None and answer.ok else ""

    def follow(self, job_id: str, write: Callable[[str], None], warn: Callable[[str], None]) -> Job:
        """Hands the job's output to `write` until the job has ended -> the job, across lost connections.

        `warn` hears of a lost connection once, and of its return. Raises UnknownJob where the cluster has forgotten the
        job, as after the loss of its head node.
        """
        return asyncio.run(self._follow(job_id, write, warn))

    async def _follow(self, job_id: str, write: Callable[[str], None], warn: Callable[[str], None]) -> Job:
        written, lost = 0, False
        while True:
            position = 0
            try:
                async with aclosing(self._output(job_id)) as output:
                    async for text in output:  # from the job's first character on
                        write(text[max(0, written - position) :])
                        position += len(text)
                        written = max(written, position)
                        if lost:
                            lost = False
                            warn("the connection is back")
                job = await asyncio.to_thread(self.get, job_id)
                if job.ended:
                    return job
            except RunFailed:  # it answers, and refuses the token now
                raise
            except (aiohttp.ClientError, requests.RequestException, OSError, RuntimeError) as error:
                if not lost:
                    lost = True
                    warn(f"lost the connection to {self.address} ({error or type(error).__name__}); the job goes on")
            await asyncio.sleep(RETRY_S)

    async def _output(self, job_id: str) -> AsyncGenerator[str]:
        """The job's output until the cluster ends it. Ends a connection on which nothing comes any more."""
        stream: Any = self._client.tail_job_logs(job_id)
        silent_since = time.monotonic()
        chunk = asyncio.ensure_future(anext(stream, None))
        try:
            while True:
                done, _ = await asyncio.wait([chunk], timeout=QUIET_S)
                if done:
                    if (text := chunk.result()) is None:
                        return
                    yield text
                    silent_since = time.monotonic()
                    chunk = asyncio.ensure_future(anext(stream, None))
                elif (await asyncio.to_thread(self.get, job_id)).ended or time.monotonic() - silent_since > SILENT_S:
                    return
        finally:
            chunk.cancel()
            with suppress(BaseException):
                await chunk
            await stream.aclose()


class _Client(JobSubmissionClient):
    """Ray's client, whose requests end after some time, with words for a refused token."""

    def _do_request(self, method: str, endpoint: str, **options: Any) -> requests.Response:
        timeout_s: Any = SENDING_S if options.get("data") else REQUEST_S
        try:
            return super()._do_request(method, endpoint, timeout=timeout_s, **options)
        except AuthenticationError as error:
            raise RunFailed(f"{self._address} refuses the token: {str(error).splitlines()[0]}") from None


def _job(details: JobDetails) -> Job:
    began, ended = details.start_time or 0, details.end_time
    metadata = details.metadata or {}
    return Job(
        id=str(details.submission_id),
        run_dir=metadata.get(RUN_DIR, ""),
        state=details.status.value,
        message=details.message or "",
        exit_code=details.driver_exit_code,
        since=(ended or began) / 1000,
        node=details.driver_node_id,
        stop_timeout_s=float(metadata.get(STOP_S, 0)),
    )


@contextmanager
def _without(variables: tuple[str, ...]) -> Iterator[None]:
    """The environment without these variables."""
    before: Mapping[str, str] = {name: value for name in variables if (value := os.environ.pop(name, None)) is not None}
    try:
        yield
    finally:
        os.environ.update(before)
