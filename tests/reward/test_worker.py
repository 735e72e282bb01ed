"""The reward worker turns every result and every error of a reward into a verdict."""

import asyncio
import math
import time
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from rlframe.errors import Hung
from rlframe.reward import AnyReward, Reward, build
from rlframe.reward.math import Math
from rlframe.reward.worker import RewardWorker
from rlframe.types import Completion, Prompt, RolloutGroup, Verdict

PROMPT = Prompt(id="arithmetic/7.0", messages=[], token_ids=[], reference="5", task="math")
COMPLETION = Completion(token_ids=[1, 2, 3], logprobs=[], versions=[], text="5", finish_reason="stop")
MATH = {"name": "math", "weight": 1.0, "extract": ["answer", "boxed"], "timeout_s": 3.0, "max_answer_chars": 512}
FORMAT = {"name": "format", "weight": 1.0, "think": "think", "answer": "answer", "opened": False, "partial": False}
OK = Verdict(score=0.5, status="scored", seconds=0.25, detail="half")


class Returns(Reward):
    """Returns `value`, or raises it."""

    value: Any

    def __call__(self, prompt: Prompt, completion: Completion) -> float | Verdict:
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


class Slow(Reward):
    """Blocks its thread for `seconds`."""

    seconds: float

    def __call__(self, prompt: Prompt, completion: Completion) -> float:
        time.sleep(self.seconds)
        return 1.0


class Patient(Slow):
    async def __call__(self, prompt: Prompt, completion: Completion) -> float:
        await asyncio.sleep(self.seconds)
        return 1.0


class Rank(Reward):
    """Scores the whole group with `values`."""

    values: list[Any]

    def score_group(self, group: RolloutGroup, verdicts: dict[str, list[Verdict]]) -> list[float | Verdict]:
        return self.values


def scores(rewards: dict[str, Reward], timeout_s: float = 5.0) -> dict[str, Verdict]:
    rows = asyncio.run(RewardWorker("worker", rewards, timeout_s).score(list(rewards), PROMPT, COMPLETION))
    return {name: row[0] for name, row in rows.items()}


def verdict_on(value: object) -> Verdict:
    return scores({"mine": Returns(name="x", weight=1.0, value=value)})["mine"]


@pytest.mark.parametrize(("value", "score"), [(0.25, 0.25), (-1.0, -1.0), (1, 1.0), (True, 1.0)])
def test_a_number_becomes_a_scored_verdict(value: float, score: float):
    verdict = verdict_on(value)
    assert (verdict.score, verdict.status) == (score, "scored")
    assert 0 <= verdict.seconds < 5


def test_a_verdict_passes_unchanged():
    assert verdict_on(OK) is OK


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (math.nan, "nan, not a finite number"),
        (math.inf, "inf, not a finite number"),
        (Verdict(score=math.nan, status="scored", seconds=0.0, detail=""), "nan, not a finite number"),
        ("1.0", "'1.0', a str, not a float"),
        (None, "None, a NoneType, not a float"),
        (ZeroDivisionError("by zero"), "ZeroDivisionError: by zero"),
    ],
)
def test_any_other_result_fails_and_names_reward_prompt_and_error(value: object, what: str):
    verdict = verdict_on(value)
    assert (verdict.score, verdict.status) == (None, "failed")
    assert verdict.detail.startswith("reward 'mine' on prompt 'arithmetic/7.0': ")
    assert what in verdict.detail


def test_a_failing_reward_does_not_touch_its_neighbours():
    rewards: dict[str, Reward] = {
        "broken": Returns(name="x", weight=1.0, value=KeyError("k")),
        "format": build(FORMAT),
    }
    assert {name: v.score for name, v in scores(rewards).items()} == {"broken": None, "format": 0.0}


def test_async_rewards_wait_together_and_blocking_rewards_take_turns():
    def seconds(kind: type[Slow], each: float) -> float:
        rewards: dict[str, Reward] = {f"r{n}": kind(name="x", weight=1.0, seconds=each) for n in range(10)}
        started = time.monotonic()
        assert {verdict.score for verdict in scores(rewards).values()} == {1.0}
        return time.monotonic() - started

    assert 0.5 <= seconds(Patient, 0.5) < 4
    assert seconds(Slow, 0.1) >= 1.0


class TakesTurns(Reward):
    """Waits for 0.4 s to be ready and for 0.4 s in each of at most two calls at a time."""

    max_calls = 2

    async def ready(self) -> None:
        await asyncio.sleep(0.4)

    async def __call__(self, prompt: Prompt, completion: Completion) -> float:
        await asyncio.sleep(0.4)
        return 1.0


def test_waits_for_a_turn_and_for_a_model_are_not_a_calls_time():
    worker = RewardWorker("worker", {"mine": TakesTurns(name="x", weight=1.0)}, timeout_s=0.7)

    async def six() -> list[float | None]:
        rows = await asyncio.gather(*(worker.score(["mine"], PROMPT, COMPLETION) for _ in range(6)))
        return [row["mine"][0].score for row in rows]

    started = time.monotonic()
    assert asyncio.run(six()) == [1.0] * 6
    assert time.monotonic() - started >= 3 * 0.8  # two at a time


def test_a_blocking_reward_that_hangs_fails_and_its_worker_raises_hung():
    worker = RewardWorker("reward-3", {"stuck": Slow(name="x", weight=1.0, seconds=1.5)}, timeout_s=0.2)

    async def twice() -> Verdict:
        first = (await worker.score(["stuck"], PROMPT, COMPLETION))["stuck"][0]
        with pytest.raises(Hung, match="reward-3: reward 'stuck' never came back"):
            await worker.score(["stuck"], PROMPT, COMPLETION)
        return first

    verdict = asyncio.run(twice())
    assert verdict.score is None
    assert "TimeoutError: took more than reward.timeout_s=0.2 s" in verdict.detail


def test_rewards_that_wait_for_a_reward_hung_in_their_call_fail():
    stuck, quick = Slow(name="x", weight=1.0, seconds=1.5), Returns(name="x", weight=1.0, value=0.5)
    worker = RewardWorker("reward-3", {"stuck": stuck, "quick": quick}, timeout_s=0.2)

    async def twice() -> dict[str, list[Verdict]]:
        first = await worker.score(["stuck", "quick"], PROMPT, COMPLETION)
        with pytest.raises(Hung):  # the next call did not begin, so another worker may run it
            await worker.score(["quick"], PROMPT, COMPLETION)
        return first

    verdicts = asyncio.run(twice())
    assert [verdicts[name][0].status for name in ("stuck", "quick")] == ["failed", "failed"]
    assert "'quick' on prompt 'arithmetic/7.0' did not run: reward-3: reward 'stuck'" in verdicts["quick"][0].detail


def test_an_async_reward_that_hangs_fails_alone():
    rewards: dict[str, Reward] = {"stuck": Patient(name="x", weight=1.0, seconds=60.0)}
    worker = RewardWorker("reward-3", rewards, timeout_s=0.2)

    async def twice() -> list[float | None]:
        return [(await worker.score(["stuck"], PROMPT, COMPLETION))["stuck"][0].score for _ in range(2)]

    assert asyncio.run(twice()) == [None, None]


@pytest.mark.parametrize(
    ("values", "expected", "what"),
    [
        ([0.5, -0.5], [0.5, -0.5], ""),
        ([0.5, math.nan], [0.5, None], "on completion 1 of prompt 'arithmetic/7.0': returned nan, not a finite number"),
        ([0.5], [None, None], "returned 1 scores for 2 completions"),
    ],
)
def test_a_reward_on_a_group_gives_each_completion_its_verdict(values: list[Any], expected: list[Any], what: str):
    worker = RewardWorker("worker", {"rank": Rank(name="x", weight=1.0, values=values)}, timeout_s=5.0)
    group = RolloutGroup.single_turn(PROMPT, [COMPLETION] * 2)
    row = asyncio.run(worker.score_group(["rank"], group, {}))["rank"]
    assert [verdict.score for verdict in row] == expected
    assert what in row[1].detail


@pytest.mark.parametrize("methods", [{}, {"__call__": lambda *_: 1.0, "score_group": lambda *_: [1.0]}])
def test_a_reward_defines_exactly_one_of_its_two_methods(methods: dict[str, Any]):
    with pytest.raises(ValidationError, match="Mine must define one of __call__ and score_group"):
        type("Mine", (Reward,), methods)(name="x", weight=1.0)


class Run(BaseModel):
    rewards: dict[str, AnyReward]


def test_a_config_with_built_in_rewards_dumps_and_loads_in_full():
    rewards = {"accuracy": MATH, "shape": FORMAT}
    run = Run.model_validate({"rewards": rewards})
    assert isinstance(run.rewards["accuracy"], Math)
    assert run.model_dump(exclude_defaults=True) == {"rewards": rewards}
    assert Run.model_validate_json(run.model_dump_json()) == run


def test_a_config_names_a_reward_in_a_users_file(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from rlframe.reward import Reward\n"
        "class Short(Reward):\n"
        "    max_tokens: int\n"
        "    def __call__(self, prompt, completion):\n"
        "        return float(len(completion.token_ids) <= self.max_tokens)\n"
    )
    reward = build({"name": f"{tmp_path}/mine.py:Short", "weight": -1.0, "max_tokens": 3})
    assert reward(PROMPT, COMPLETION) == 1.0
    assert Run(rewards={"short": reward}).model_dump()["rewards"]["short"]["max_tokens"] == 3


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"name": "maths"}, "'maths' is none of code, .*math"),
        ({"weight": math.inf}, "finite number"),
        ({"weight": "1"}, "valid number"),
        ({"timeout_s": 0}, "greater than 0"),
        ({"max_answer_chars": -1}, "greater than 0"),
        ({"extract": []}, "at least 1 item"),
        ({"extract": ["somewhere"]}, "'answer', 'boxed', 'hash' or 'last'"),
        ({"gain": 1}, "gain"),
    ],
)
def test_a_wrong_reward_config_says_what_is_wrong(change: dict[str, object], what: str):
    with pytest.raises(ValidationError, match=what):
        Run.model_validate({"rewards": {"accuracy": MATH | change}})


def test_no_verdict_shows_the_password_of_an_endpoint():
    hidden = "judge at https://***@judge.example/v1: Connection error"
    text = hidden.replace("***", "me:s3cret")
    assert verdict_on(Verdict(score=None, status="failed", seconds=0.0, detail=text)).detail == hidden
    raised = verdict_on(OSError(text)).detail
    assert "s3cret" not in raised and hidden in raised
