"""`Attempt`: what KubeRay makes of a RayJob at each of its attempts: a new RayCluster, and in it the job."""

from __future__ import annotations

import os
import shlex
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from ray.job_submission import JobStatus, JobSubmissionClient

from benchmarks.chaos_parts import settings
from benchmarks.kubernetes_parts.api import Api
from benchmarks.kubernetes_parts.driver import SPEED
from benchmarks.kubernetes_parts.pods import Kubelet, autoscaler
from benchmarks.kubernetes_parts.shrunk import ray_cluster, ray_job
from kubernetes.check.pods import HEAD

ROOT = Path(__file__).parents[2]
START_S = 120.0  # for the head to answer
FIRST_IP = 41  # of the first attempt: 127.0.41.1
# Keys of the overlay's entrypoint that stay. The others name a large model and its data.
KEPT = ("cluster=", "resume=", "rollout.engines=", "rollout.labels=", "learner.labels=", "reward.labels=")


class Attempt:
    """A cluster of pods with Ray's autoscaler, and the run as its job. The job's console is a file."""

    def __init__(self, number: int, folder: Path, run_dir: Path, model: Path, token: str) -> None:
        """`folder`: a short name, since a socket's name has 107 bytes. `token`: of Ray's authentication."""
        self.token = token
        self.number = number
        self.folder = folder / str(number)
        self.folder.mkdir()
        self.console = run_dir.parent / f"console-{number}.log"
        self.speed = folder / "speed"
        environment = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": token,
            SPEED: str(self.speed),
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "250",
            "RAY_enable_autoscaler_v2": "1",
        }
        self.kubelet = Kubelet(ray_cluster(number), self.folder, environment, FIRST_IP + number - 1)
        chaos = [each for each in settings.overrides(model, run_dir) if not each.startswith(KEPT)]
        kept = [word for word in shlex.split(ray_job()["spec"]["entrypoint"]) if word.startswith(KEPT)]
        self.overrides = [*kept, *chaos, "rollout.episode_workers=null", "evaluate.every=1000000"]
        self._stack = ExitStack()

    def open(self, steps: int) -> None:
        """Starts the head, the other pods, the autoscaler and the job."""
        self._stack.callback(self.kubelet.close)
        api = Api(self.kubelet, self.folder)
        self._stack.callback(api.close)
        self.kubelet.open(START_S)
        scaler = autoscaler(self.kubelet, api.environment(), self.folder / "autoscaler.log")
        self._stack.callback(scaler.wait)
        self._stack.callback(scaler.kill)
        command = [sys.executable, "-m", "benchmarks.kubernetes_parts.driver", "train", *self.overrides]
        entrypoint = f"exec {shlex.join([*command, f'steps={steps}'])} > {shlex.quote(str(self.console))} 2>&1"
        self._jobs = self._client()
        self.job = self._jobs.submit_job(entrypoint=entrypoint)

    def status(self) -> JobStatus:
        return self._jobs.get_job_status(self.job)

    def close(self) -> None:
        """Ends every process of the attempt, as if all of its nodes were lost."""
        self._stack.close()

    def bounds(self) -> dict[str, tuple[int, int]]:
        """Least and most pods of each group of workers."""
        templates = self.kubelet.templates().values()
        return {each.group: (each.least, each.most) for each in templates if each.group != HEAD}

    def last_words(self) -> str:
        console = self.console.read_text(errors="replace")[-3000:] if self.console.exists() else ""
        return f"{console}\n{(self.folder / 'autoscaler.log').read_text()[-1500:]}"

    def _client(self) -> JobSubmissionClient:
        deadline = time.monotonic() + START_S
        while True:
            try:
                return JobSubmissionClient(self.kubelet.dashboard, headers={"Authorization": f"Bearer {self.token}"})
            except (ConnectionError, RuntimeError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(1)
