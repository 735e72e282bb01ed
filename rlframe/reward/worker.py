"""`RewardWorker`: all rewards of a run on one completion; `combine`: their weighted sum."""

from __future__ import annotations

import time
import traceback
from math import isfinite

from rlframe.reward.base import Reward
from rlframe.types import Completion, Prompt, RolloutGroup, ScoredGroup, Verdict


class RewardWorker:
    """Turns whatever a reward returns or raises into a verdict: a bug in one never stops a run or scores 0."""

    def __init__(self, rewards: dict[str, Reward]) -> None:
        self.rewards = rewards
        for reward in rewards.values():
            reward.start()

    def score(self, prompt: Prompt, completion: Completion) -> dict[str, Verdict]:
        """Reward name -> its verdict, before weighting."""
        return {name: judge(name, reward, prompt, completion) for name, reward in self.rewards.items()}

    def close(self) -> None:
        for reward in self.rewards.values():
            reward.close()


def judge(name: str, reward: Reward, prompt: Prompt, completion: Completion) -> Verdict:
    """One reward's verdict; `failed` where it raised or returned no finite number."""
    started = time.perf_counter()
    try:
        result = reward(prompt, completion)
        problem = problem_with(result)
    except Exception as error:  # researchers' code: whatever it raises is that verdict's detail
        result, problem = None, f"{type(error).__name__}: {error}\n{traceback.format_exc()}"
    seconds = time.perf_counter() - started
    if problem is not None:
        detail = f"reward {name!r} on prompt {prompt.id!r}: {problem}"
        return Verdict(score=None, status="failed", seconds=seconds, detail=detail)
    if isinstance(result, Verdict):
        return result
    assert result is not None
    return Verdict(score=float(result), status="scored", seconds=seconds, detail="")


def problem_with(result: object) -> str | None:
    """Why a reward's result is no verdict, or None."""
    score = result.score if isinstance(result, Verdict) else result
    if score is None and isinstance(result, Verdict):
        return None
    if not isinstance(score, int | float):
        return f"returned {result!r}, a {type(result).__name__}, not a float or a Verdict"
    return None if isfinite(score) else f"returned {score}, not a finite number"


def combine(group: RolloutGroup, verdicts: list[dict[str, Verdict]], weights: dict[str, float]) -> ScoredGroup:
    """The group with its rewards: sums over reward names of weight x score. verdicts: [G].

    A completion that any reward failed on has no reward: a sum without one term would rank it against full sums.
    Raises ValueError where there is not one set of verdicts for each completion.
    """
    if len(verdicts) != len(group.completions):
        completions = len(group.completions)
        raise ValueError(f"prompt {group.prompt.id!r}: {len(verdicts)} sets of verdicts for {completions} completions")
    by_name = {name: [of_completion[name] for of_completion in verdicts] for name in weights}
    return ScoredGroup(group=group, rewards=[weighted_sum(v, weights) for v in verdicts], verdicts=by_name)


def weighted_sum(verdicts: dict[str, Verdict], weights: dict[str, float]) -> float | None:
    """None where a verdict has no score."""
    total = 0.0
    for name, weight in weights.items():
        score = verdicts[name].score
        if score is None:
            return None
        total += weight * score
    return total
