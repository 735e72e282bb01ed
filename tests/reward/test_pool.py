"""The reward pool over real actors: spread, back-pressure, and workers that die or hang."""

import asyncio
import os
import signal
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from rlframe.actors.replicas import Replica, Replicas
from rlframe.cluster.placement import reward_slots
from rlframe.cluster.ray_cluster import send_user_modules
from rlframe.cluster.reward_actors import reward_pool, start_reward_actors
from rlframe.reward import build
from rlframe.reward.config import RewardConfig
from rlframe.reward.failures import RewardsFail
from rlframe.reward.pool import RewardPool, RewardWorkers
from rlframe.types import Completion, Prompt, RolloutGroup, Verdict
from tests.tiny.ended import ended

PROMPT = Prompt(id="p", messages=[], token_ids=[], reference=r"2\sqrt{2}", task="math", extra={"right": 1.0})

# A user's own file of rewards. A completion's text says what the rewards do.
MINE = """
import asyncio, os, time
from pathlib import Path
from rlframe.reward import Reward
from rlframe.types import Verdict


class Obeys(Reward):
    journal: str

    async def __call__(self, prompt, completion):
        word, _, number = completion.text.partition(" ")
        with open(self.journal, "a") as journal:
            journal.write(completion.text + "\\n")
        if word == "sleep":
            await asyncio.sleep(float(number))
        if word == "wait":
            while not Path(self.journal).with_name("gate").exists():
                await asyncio.sleep(0.02)
        if word == "hang":
            time.sleep(float(number))
        if word == "die":
            os._exit(1)
        if word == "once" and Path(self.journal).read_text().count(completion.text + "\\n") == 1:
            raise ConnectionError("the judge was down")
        if word == "never":
            raise ConnectionError("the judge is down")
        if word == "final":
            return Verdict(score=None, status="failed", seconds=0.0, detail="too long", final=True)
        return Verdict(score=prompt.extra["right"], status="scored", seconds=0.0, detail=str(os.getpid()))


class Hangs(Reward):
    journal: str

    def __call__(self, prompt, completion):
        with open(self.journal, "a") as journal:
            journal.write(completion.text + "\\n")
        if completion.text == "hang" and Path(self.journal).read_text().count("hang\\n") == 1:
            time.sleep(3600)
        return 1.0


class Shortest(Reward):
    def score_group(self, group, verdicts):
        lengths = [len(completion.token_ids) for completion in group.completions]
        right = [verdict.score for verdict in verdicts["obeys"]]
        return [float(length == min(lengths)) * score for length, score in zip(lengths, right)]
"""


def start_pool(config: RewardConfig, handles: dict[str, Any]) -> RewardPool:
    return reward_pool(config, start_reward_actors(config, reward_slots(config), handles))


def completion(text: str, tokens: int = 1) -> Completion:
    return Completion(token_ids=[0] * tokens, logprobs=[], versions=[], text=text, finish_reason="stop")


@pytest.fixture
def pool(local_ray: None, tmp_path: Path) -> Iterator[Any]:
    """Makes pools as `cluster.start` does, from reward terms whose classes are in a user's own file."""
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "journal").touch()
    started: dict[str, Any] = {}

    def make(
        workers: int = 1, attempts: int = 3, max_failed_share: float = 1.0, timeout_s: float = 30.0, **classes: str
    ):
        terms = {
            name: build(
                {"name": f"{tmp_path}/mine.py:{cls}", "weight": 1.0}
                | ({"journal": str(tmp_path / "journal")} if cls != "Shortest" else {})
            )
            for name, cls in (classes or {"obeys": "Obeys"}).items()
        }
        send_user_modules()
        config = RewardConfig(
            workers=workers,
            cpus=0,
            labels={},
            resources={},
            timeout_s=timeout_s,
            attempts=attempts,
            max_failed_share=max_failed_share,
            terms=terms,
        )
        return start_pool(config, started)

    yield make
    for handle in started.values():
        ray.kill(handle)


def journal(tmp_path: Path) -> list[str]:
    return (tmp_path / "journal").read_text().splitlines()


async def score_all(pool: RewardPool, texts: list[str]) -> list[dict[str, Verdict]]:
    return await asyncio.gather(*[pool.score(PROMPT, completion(text)) for text in texts])


def test_a_users_file_and_extra_columns_travel_by_value(pool: Any, tmp_path: Path):
    rewards = pool()
    (tmp_path / "mine.py").unlink()  # as on another machine
    verdicts = asyncio.run(score_all(rewards, [f"sleep 0.0{n}" for n in range(8)]))
    assert [verdict["obeys"].score for verdict in verdicts] == [1.0] * 8
    assert sorted(journal(tmp_path)) == [f"sleep 0.0{n}" for n in range(8)]


def test_two_workers_share_the_load_evenly(pool: Any):
    verdicts = asyncio.run(score_all(pool(workers=2), ["sleep 0.2"] * 8))
    pids = [verdict["obeys"].detail for verdict in verdicts]
    assert sorted(pids.count(pid) for pid in set(pids)) == [4, 4]


def test_full_workers_hold_their_callers_back(local_ray: None):
    @ray.remote(num_cpus=0)
    class Counting:
        def __init__(self) -> None:
            self.here, self.most = 0, 0

        async def count(self) -> dict[str, int]:
            self.here += 1
            self.most = max(self.most, self.here)
            await asyncio.sleep(0.05)
            self.here -= 1
            return {"most": self.most}

    replicas = Replicas("worker", [Replica(name=name, handle=Counting.remote()) for name in ("one", "two")])
    workers = RewardWorkers(["x"], replicas, max_in_flight=3, max_deaths=1)

    async def calls() -> list[dict[str, int]]:
        return await asyncio.gather(*[workers.call("count") for _ in range(30)])

    assert max(answer["most"] for answer in asyncio.run(calls())) == 3


def test_a_worker_killed_in_mid_batch_loses_no_verdict_and_comes_back(pool: Any, tmp_path: Path):
    rewards = pool(workers=2)

    async def kill_one() -> list[dict[str, Verdict]]:
        first = (await score_all(rewards, ["sleep 0"]))[0]["obeys"]
        batch = asyncio.ensure_future(score_all(rewards, [f"wait {n}" for n in range(8)]))
        while len(journal(tmp_path)) < 1 + 8 and not batch.done():
            await asyncio.sleep(0.02)
        os.kill(int(first.detail), signal.SIGKILL)
        await ended(int(first.detail))
        (tmp_path / "gate").touch()
        return await batch

    verdicts = asyncio.run(kill_one())
    assert [verdict["obeys"].score for verdict in verdicts] == [1.0] * 8
    # The dead worker's four calls ran again elsewhere. Each has one verdict all the same.
    assert len(journal(tmp_path)) == 1 + 8 + 4
    assert rewards.metrics()["reward/workers_replaced"] == 1


def test_a_call_waits_until_the_only_worker_is_back(pool: Any):
    rewards = pool(workers=1)

    async def kill_it() -> float | None:
        first = (await score_all(rewards, ["sleep 0"]))[0]["obeys"]
        os.kill(int(first.detail), signal.SIGKILL)
        return (await score_all(rewards, ["sleep 0"]))[0]["obeys"].score

    assert asyncio.run(kill_it()) == 1.0


def test_a_completion_that_kills_every_worker_fails_and_says_so(pool: Any, tmp_path: Path):
    verdict = asyncio.run(score_all(pool(workers=2, attempts=2), ["die"]))[0]["obeys"]
    assert (verdict.score, verdict.status) == (None, "failed")
    assert "its workers died" in verdict.detail
    assert journal(tmp_path) == ["die", "die"]


def test_a_hung_reward_runs_again_in_a_new_worker(pool: Any, tmp_path: Path):
    rewards = pool(workers=1, timeout_s=1.0, hangs="Hangs")
    verdicts = asyncio.run(score_all(rewards, ["hang", "a", "b", "c"]))
    assert [verdict["hangs"].score for verdict in verdicts] == [1.0] * 4
    assert sorted(journal(tmp_path)) == ["a", "b", "c", "hang", "hang"]


def test_a_failed_verdict_is_requested_again_up_to_the_attempts(pool: Any, tmp_path: Path):
    rewards = pool(attempts=3)
    texts = ["once", "never", "final"]
    once, never, final = [verdict["obeys"] for verdict in asyncio.run(score_all(rewards, texts))]
    assert (once.score, never.score, final.score) == (1.0, None, None)
    assert "ConnectionError: the judge is down" in never.detail
    assert [journal(tmp_path).count(word) for word in texts] == [2, 3, 1]
    assert rewards.metrics()["reward/retried"] == 3


def test_too_many_failed_verdicts_raise_with_their_reasons(pool: Any):
    with pytest.raises(RewardsFail, match=r"'obeys' failed on 16 of its last 16[\s\S]*the judge is down"):
        asyncio.run(score_all(pool(attempts=1, max_failed_share=0.5), ["never"] * 16))


def test_a_reward_on_groups_speaks_after_the_others(pool: Any):
    rewards = pool(obeys="Obeys", shortest="Shortest")
    completions = [completion("sleep 0", tokens) for tokens in (3, 2, 5)] + [completion("never", 2)]

    async def group() -> list[float | None]:
        verdicts = [await rewards.score(PROMPT, member) for member in completions[:3]]
        assert [list(names) for names in verdicts] == [["obeys"]] * 3
        scored = await rewards.score_group(RolloutGroup.single_turn(PROMPT, completions[:3]), verdicts)
        assert [verdict.score for verdict in scored.verdicts["shortest"]] == [0.0, 1.0, 0.0]
        return scored.rewards

    assert asyncio.run(group()) == [1.0, 2.0, 1.0]


def test_math_is_scored_in_another_process_which_refuses_hostile_ones(local_ray: None):
    math = {"name": "math", "weight": 1.0, "extract": ["answer", "boxed"], "timeout_s": 1.0, "max_answer_chars": 200}
    shape = {"name": "format", "weight": 0.1, "think": "think", "answer": "answer", "opened": False, "partial": False}
    terms = {"math": build(math), "format": build(shape)}
    started: dict[str, Any] = {}
    config = RewardConfig(
        workers=1, cpus=0, labels={}, resources={}, timeout_s=60.0, attempts=1, max_failed_share=0.0, terms=terms
    )
    rewards = start_pool(config, started)
    texts = [r"<think>.</think><answer>\sqrt{8}</answer>", r"\boxed{3}", r"\boxed{(10^9)!}"]
    verdicts = asyncio.run(score_all(rewards, texts))
    assert [(v["math"].score, v["math"].status) for v in verdicts] == [
        (1.0, "scored"),
        (0.0, "scored"),
        (0.0, "unparseable"),
    ]
    assert [v["format"].score for v in verdicts] == [1.0, 0.0, 0.0]
    started_at = time.monotonic()
    ray.get(started["reward-0"].close.remote(), timeout=20)
    assert time.monotonic() - started_at < 20
    ray.kill(started["reward-0"])


def test_a_reward_without_workers_is_an_error():
    with pytest.raises(ValueError, match="needs workers"):
        RewardWorkers(["math"], Replicas("worker"), max_in_flight=1, max_deaths=1)


def tiny_wheel(folder: Path) -> Path:
    """The wheel of a package of one line that no other environment has."""
    wheel = folder / "rlframe_test_marker-1.0-py3-none-any.whl"
    about = "rlframe_test_marker-1.0.dist-info"
    files = {
        "rlframe_test_marker.py": "SCORE = 0.75\n",
        f"{about}/METADATA": "Metadata-Version: 2.1\nName: rlframe-test-marker\nVersion: 1.0\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{about}/RECORD": "",
    }
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return wheel


@pytest.mark.long
def test_only_a_rewards_own_actors_have_its_packages(local_ray: None, tmp_path: Path):
    (tmp_path / "mine.py").write_text(
        "from rlframe.reward import Reward\n\n\nclass Marked(Reward):\n"
        "    def __call__(self, prompt, completion):\n"
        "        import rlframe_test_marker\n\n        return rlframe_test_marker.SCORE\n"
    )
    own = {"count": 1, "cpus": 0, "gpus": 0, "pip": [str(tiny_wheel(tmp_path))]}
    marked = {"name": f"{tmp_path}/mine.py:Marked", "weight": 1.0}
    terms = {"apart": build(marked | {"actors": own}), "among_others": build(marked)}
    send_user_modules()
    config = RewardConfig(
        workers=1, cpus=0, labels={}, resources={}, timeout_s=60.0, attempts=1, max_failed_share=1.0, terms=terms
    )
    started: dict[str, Any] = {}
    rewards = start_pool(config, started)
    # As a run's start does: the environment of a reward's own actors takes a minute on a busy machine.
    ray.get([handle.__ray_ready__.remote() for handle in started.values()], timeout=400)
    verdicts = asyncio.run(score_all(rewards, ["5"]))[0]
    assert sorted(started) == ["reward-0", "reward-apart-0"]
    assert verdicts["apart"].score == 0.75
    assert "No module named 'rlframe_test_marker'" in verdicts["among_others"].detail
    for handle in started.values():
        ray.kill(handle)
