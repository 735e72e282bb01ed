"""A run on pods, driven by Kubernetes' rules: growth and shrinking by the run's own signals, lost pods, a new attempt.

    python benchmarks/kubernetes_run.py        # about 10 minutes on two cores

The overlay `small`, with sizes for this machine, is given to a Kubernetes API in memory, whose kubelet starts a
`ray start` process for each pod. Ray's own autoscaler changes the number of pods. The run is the overlay's RayJob:
real DeepSpeed ranks, episode workers, rewards, log and checkpoints; engines only take time. It is driven through

    slow engines: 1 -> 3 rollout pods
    a rollout pod is evicted (SIGTERM, as a spot node), another is killed, the learner's pod is killed
    fast engines: 3 -> 1 rollout pods
    all nodes are lost: the second attempt of the RayJob, in a new cluster, goes on and ends the run

At the end come the seconds that this took, and whatever does not hold: exit code 1 then.
"""

from __future__ import annotations

import argparse
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from ray.job_submission import JobStatus

from benchmarks.chaos_parts.balance import balance
from benchmarks.chaos_parts.report import conclude
from benchmarks.chaos_parts.storm import newest_step
from benchmarks.kubernetes_parts.attempt import Attempt
from benchmarks.kubernetes_parts.pods import RunningPod
from benchmarks.kubernetes_parts.shrunk import IDLE_S
from rlframe.record.directory import RunDir
from rlframe.record.status import read_status
from tests.tiny.models import make_llama

ROLLOUT, LEARNER = "rollout", "learner"
SLOW, FAST = 0.1, 20.0  # speeds of engines
GROWTH_S = 15.0  # at most, from the run's wish to the pod
EMPTY_S = IDLE_S + 10.0  # at most, from an empty node to its end
WAIT_S = 600.0  # for anything
LOOK_S = 0.2
LAST_STEPS = 10  # of the second attempt
ENDLESS = 1_000_000


class PodRun:
    """Drives the attempts, and collects seconds and violations."""

    def __init__(self, folder: Path, short: Path) -> None:
        """`folder`: for the run's files. `short`: for Ray's."""
        self.files = RunDir(folder / "run")
        self.short = short
        self.model = make_llama(folder / "model", tie_word_embeddings=True)
        self.began = time.monotonic()
        self.figures: list[tuple[str, float, float | None]] = []  # what, seconds, bound
        self.wrong: list[str] = []
        self.token = secrets.token_hex(32)
        self.attempt = self._attempt(1)
        self._wanted, self._wanted_at = 0, time.time()

    def drive(self) -> None:
        self._set_speed(SLOW)
        try:
            self.attempt.open(ENDLESS)
            self._grow()
            self._lose_pods()
            self._shrink()
        finally:
            self._end_attempt()
        self.attempt = self._attempt(2)
        try:
            self._go_on()
        finally:
            self._end_attempt()
        consoles = sorted(self.files.path.parent.glob("console-*.log"))
        found = balance(self.files.path, "\n".join(each.read_text(errors="replace") for each in consoles))
        self.wrong += found.wrong
        self.say(found.line())

    def say(self, text: str) -> None:
        print(f"{time.monotonic() - self.began:5.0f} s  step {newest_step(self.files):4d}  {text}", flush=True)

    def _grow(self) -> None:
        self._until(lambda: self._engines("serving") == 1, "the first engine serves")
        for count in (2, 3):
            self._until(lambda count=count: self._engines("wanted") >= count, f"{count} engines are wanted")
            asked = self._wanted_at
            self._until(lambda count=count: len(self._pods()) >= count, f"{count} rollout pods are there")
            self._figure(f"pod {count} after the run wanted it", self._pods()[-1].began - asked, GROWTH_S)
            self._until(lambda count=count: self._engines("serving") >= count, f"{count} engines serve")
            self._figure(f"engine {count} serves after the run wanted it", time.time() - asked)

    def _lose_pods(self) -> None:
        self._lose("evicted", self.attempt.kubelet.evict, self._pods()[-1].grace_s)
        self._lose("killed", self.attempt.kubelet.kill, None)
        [pod], began, step = self._pods(LEARNER), time.time(), newest_step(self.files)
        self.attempt.kubelet.kill(pod)
        self.say(f"{pod.name} is killed")
        self._until(lambda: "the learner is lost" in self._console(), "the run notices")
        self._until(lambda: newest_step(self.files) > step + 1, "the learner takes steps again")
        self._figure("learner's pod killed: the next step", time.time() - began)

    def _lose(self, how: str, act: Callable[[RunningPod], None], bound: float | None) -> None:
        """Takes a rollout pod away, and waits until another pod's engine serves."""
        pod, began = self._pods()[-1], time.time()
        seen = self._noticed()
        act(pod)
        self.say(f"{pod.name} is {how}")
        self._until(lambda: pod.name not in self.attempt.kubelet.pods, "it is gone")
        self._figure(f"rollout pod {how}: gone", time.time() - began, bound)
        self._until(lambda: self._noticed() > seen, "the run notices")
        self._until(lambda: self._engines("serving") == 3 == len(self._pods()), "3 engines serve again")
        self._figure(f"rollout pod {how}: 3 engines serve again", time.time() - began)

    def _noticed(self) -> int:
        """Engines that have left or were lost, as the console tells."""
        console = self._console()
        return console.count(" leaves: its node leaves the cluster") + console.count("another engine takes its place")

    def _console(self) -> str:
        return self.attempt.console.read_text(errors="replace")

    def _shrink(self) -> None:
        before = {pod.name: pod for pod in self._pods()}
        self._set_speed(FAST)
        self._until(lambda: self._engines("wanted") == 1, "one engine is wanted")
        gone: dict[str, float] = {}

        def is_small() -> bool:
            pods = self.attempt.kubelet.pods
            gone.update({name: time.time() for name in before if name not in pods and name not in gone})
            return len(gone) == 2

        self._until(is_small, "one rollout pod is left")
        for name, ended in gone.items():
            self._figure(f"{name}: gone after its last actor", ended - (before[name].busy or 0.0), EMPTY_S)

    def _go_on(self) -> None:
        began, step = time.time(), newest_step(self.files)
        self.attempt.open(step + LAST_STEPS)
        self._until(lambda: newest_step(self.files) > step, "the second attempt takes steps")
        self._figure("all nodes lost: the next step, in a new cluster", time.time() - began)
        self._until(lambda: self.attempt.status().is_terminal(), "the run ends")
        if (status := self.attempt.status()) != JobStatus.SUCCEEDED:
            self.wrong.append(f"the second attempt ended as {status}: {self.attempt.last_words()}")

    def _attempt(self, number: int) -> Attempt:
        return Attempt(number, self.short, self.files.path, self.model, self.token)

    def _end_attempt(self) -> None:
        bounds = self.attempt.bounds()
        for group, counts in self.attempt.kubelet.extremes.items():
            self.say(f"attempt {self.attempt.number}: {counts[0]} to {counts[1]} pods of group {group}")
            if not bounds[group][0] <= counts[0] <= counts[1] <= bounds[group][1]:
                self.wrong.append(f"{counts[0]} to {counts[1]} pods of {group}, and {bounds[group]} are allowed")
        self.attempt.close()

    def _pods(self, group: str = ROLLOUT) -> list[RunningPod]:
        return self.attempt.kubelet.members(group)

    def _engines(self, state: str) -> int:
        try:
            return read_status(self.files.status).engine_states.get(state, 0)
        except (OSError, ValueError):
            return 0

    def _set_speed(self, speed: float) -> None:
        new = self.short / "speed.new"
        new.write_text(str(speed))
        new.replace(self.short / "speed")
        self.say(f"engines have speed {speed:g}")

    def _figure(self, what: str, seconds: float, bound: float | None = None) -> None:
        self.figures.append((what, seconds, bound))
        self.say(f"{what}: {seconds:.1f} s")
        if bound is not None and seconds > bound:
            self.wrong.append(f"{what}: {seconds:.1f} s, and the bound is {bound:g} s")

    def _until(self, happened: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + WAIT_S
        while True:
            self._note_wanted()
            if happened():
                break
            ended = self.attempt.status().is_terminal() and what != "the run ends"
            if ended or time.monotonic() > end:
                sys.exit(
                    f"{'the job ended' if ended else f'{WAIT_S:g} s passed'} before: {what}\n"
                    f"{self.attempt.last_words()}"
                )
            time.sleep(LOOK_S)
        self.say(what)

    def _note_wanted(self) -> None:
        if (wanted := self._engines("wanted")) != self._wanted:
            self._wanted, self._wanted_at = wanted, time.time()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="for all files, kept at the end; default: a temporary one")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("SIGTERM"))  # the pods are ended on the way out
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="kubernetes-run-"))
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="k8s") as short:
        run = PodRun(folder, Path(short))
        run.drive()
    print("\n| what | s | at most |\n|---|---|---|")
    for what, seconds, bound in run.figures:
        print(f"| {what} | {seconds:.1f} | {'' if bound is None else f'{bound:g}'} |")
    return conclude(run.wrong, folder, keep=arguments.folder is not None)


if __name__ == "__main__":
    sys.exit(main())
