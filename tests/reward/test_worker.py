"""The reward worker: whatever a reward does becomes a verdict. And the weighted sum."""

import math
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from rlframe.reward import AnyReward, Reward, build
from rlframe.reward.format import Format
from rlframe.reward.math import Math
from rlframe.reward.worker import RewardWorker, combine
from rlframe.types import Completion, Prompt, RolloutGroup, Verdict

PROMPT = Prompt(id="arithmetic/7.0", messages=[], token_ids=[], reference="5", task="math")
COMPLETION = Completion(token_ids=[1, 2, 3], logprobs=[], versions=[], text="5", finish_reason="stop")
OK = Verdict(score=0.5, status="scored", seconds=0.25, detail="half")


class Returns(Reward):
    """Returns what it is told to, or raises it."""

    value: Any

    def __call__(self, prompt: Prompt, completion: Completion) -> float | Verdict:
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


def verdict_on(value: object) -> Verdict:
    return RewardWorker({"mine": Returns(name="x", weight=1.0, value=value)}).score(PROMPT, COMPLETION)["mine"]


def scored(score: float | None) -> Verdict:
    return Verdict(score=score, status="failed" if score is None else "scored", seconds=0.0, detail="")


@pytest.mark.parametrize(("value", "score"), [(0.25, 0.25), (-1.0, -1.0), (1, 1.0), (True, 1.0)])
def test_a_number_becomes_a_scored_verdict(value: float, score: float):
    verdict = verdict_on(value)
    assert (verdict.score, verdict.status) == (score, "scored")
    assert 0 <= verdict.seconds < 0.1


def test_a_verdict_is_passed_on_as_it_is():
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
def test_anything_else_fails_without_a_score_and_names_reward_prompt_and_error(value: object, what: str):
    verdict = verdict_on(value)
    assert (verdict.score, verdict.status) == (None, "failed")
    assert verdict.detail.startswith("reward 'mine' on prompt 'arithmetic/7.0': ")
    assert what in verdict.detail


def test_a_failing_reward_does_not_touch_its_neighbours():
    rewards: dict[str, Reward] = {
        "broken": Returns(name="x", weight=1.0, value=KeyError("k")),
        "format": Format(name="format", weight=1.0),
    }
    verdicts = RewardWorker(rewards).score(PROMPT, COMPLETION)
    assert {name: v.score for name, v in verdicts.items()} == {"broken": None, "format": 0.0}


def test_rewards_are_summed_with_their_weights_and_one_missing_score_leaves_a_completion_out():
    group = RolloutGroup(prompt=PROMPT, completions=[COMPLETION] * 3)
    verdicts = [
        {"math": scored(1.0), "length": scored(3.0)},
        {"math": scored(0.0), "length": scored(1.0)},
        {"math": scored(1.0), "length": scored(None)},
    ]
    result = combine(group, verdicts, {"math": 2.0, "length": -0.5})
    assert result.rewards == [0.5, -0.5, None]  # 2·1 - 0.5·3, 2·0 - 0.5·1
    assert [v.score for v in result.verdicts["length"]] == [3.0, 1.0, None]
    assert result.group is group


def test_a_verdict_too_few_is_an_error():
    with pytest.raises(ValueError, match="1 sets of verdicts for 2 completions"):
        combine(RolloutGroup(prompt=PROMPT, completions=[COMPLETION] * 2), [{"math": OK}], {"math": 1.0})


class Run(BaseModel):
    rewards: dict[str, AnyReward]


MATH = {"name": "math", "weight": 1.0, "timeout_s": 3.0, "max_answer_chars": 512}


def test_a_config_names_built_in_rewards_and_says_them_again_in_full():
    rewards = {"accuracy": MATH, "shape": {"name": "format", "weight": 0.1}}
    run = Run.model_validate({"rewards": rewards})
    assert isinstance(run.rewards["accuracy"], Math)
    assert run.model_dump() == {"rewards": rewards}
    assert Run.model_validate_json(run.model_dump_json()) == run


def test_a_config_names_a_reward_in_a_file_of_ones_own(tmp_path):
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
        ({"name": "maths"}, "'maths' is none of format, judge, math, model"),
        ({"weight": math.inf}, "finite number"),
        ({"weight": "1"}, "valid number"),
        ({"timeout_s": 0}, "greater than 0"),
        ({"max_answer_chars": -1}, "greater than 0"),
        ({"gain": 1}, "gain"),
    ],
)
def test_a_wrong_reward_config_says_what_is_wrong(change: dict[str, object], what: str):
    with pytest.raises(ValidationError, match=what):
        Run.model_validate({"rewards": {"accuracy": MATH | change}})
