"""Statistics of rollouts: the metrics of a step's groups (pure), and the sampling speed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import fmean, pstdev

from rlframe.algorithm.rate import Truncated
from rlframe.types import ScoredGroup, VersionSpan


def rollout_metrics(groups: Sequence[ScoredGroup], version: int, truncated: Truncated = "train") -> dict[str, float]:
    """Metrics of the groups that policy `version` is trained on.

    A mean over nothing, such as the mean reward when every reward failed, is left out. `rollout/masked` is the share of
    completions without a loss because they were cut off, and `truncated` does not train on such completions.
    """
    completions = [completion for scored in groups for completion in scored.group.completions]
    lengths = [length for scored in groups for length in scored.lengths]
    metrics: dict[str, float] = {"rollout/tokens": sum(lengths)}
    if completions:
        metrics["rollout/prompt_tokens"] = fmean(len(scored.group.prompt.token_ids) for scored in groups)
        prompt_tokens = sum(len(scored.group.prompt.token_ids) * len(scored.group.completions) for scored in groups)
        metrics["rollout/prompt_cached"] = sum(completion.cached_tokens for completion in completions) / prompt_tokens
        metrics["rollout/completion_tokens"] = fmean(lengths)
        metrics["rollout/truncated"] = fmean(completion.finish_reason == "length" for completion in completions)
        metrics["rollout/masked"] = 0.0 if truncated == "train" else metrics["rollout/truncated"]
    spans = [span for scored in groups for trajectory in scored.group.trajectories for span in trajectory.versions]
    return _reward_metrics(groups) | metrics | _staleness(spans, version)


def _reward_metrics(groups: Sequence[ScoredGroup]) -> dict[str, float]:
    group_rewards = [[reward for reward in scored.rewards if reward is not None] for scored in groups]  # [P][<= G]
    named_verdicts = [
        (name, verdict) for scored in groups for name, verdicts in scored.verdicts.items() for verdict in verdicts
    ]
    metrics: dict[str, float] = {}
    rewards = [reward for rewards in group_rewards for reward in rewards]
    if rewards:
        metrics["reward/mean"] = fmean(rewards)
        metrics["reward/std"] = pstdev(rewards)
    for name in dict.fromkeys(name for name, _ in named_verdicts):
        verdicts = [verdict for verdict_name, verdict in named_verdicts if verdict_name == name]
        scores = [verdict.score for verdict in verdicts if verdict.score is not None]
        if scores:
            metrics[f"reward/{name}"] = fmean(scores)
        for status in ("unparseable", "timeout", "failed"):
            metrics[f"reward/{name}/{status}"] = fmean(verdict.status == status for verdict in verdicts)
        metrics[f"reward/{name}/seconds_max"] = max(verdict.seconds for verdict in verdicts)
    metrics["reward/failed"] = sum(verdict.status == "failed" for _, verdict in named_verdicts)
    # A group of equal rewards, or with fewer than two rewards, has advantages 0. A single completion is no group.
    metrics["reward/groups_without_signal"] = sum(
        len(set(rewards)) <= 1 for scored, rewards in zip(groups, group_rewards, strict=True) if len(scored.rewards) > 1
    )
    return metrics


def _staleness(spans: Sequence[VersionSpan], version: int) -> dict[str, float]:
    """Age of the tokens in policy versions. The mean is over tokens, since one completion can span versions."""
    tokens = sum(span.end - span.start for span in spans)
    if tokens == 0:
        return {}
    return {
        "rollout/staleness_max": max(version - span.version for span in spans),
        "rollout/staleness_mean": sum((version - span.version) * (span.end - span.start) for span in spans) / tokens,
    }


class Throughput:
    """Sampled tokens per second of sampling. Seconds in which nothing is sampled do not count.

    >>> with throughput:
    ...     throughput.tokens += 30
    >>> throughput.take()  # after 2 s inside the block
    15.0
    """

    def __init__(self) -> None:
        self.tokens = 0
        self._seconds = 0.0
        self._open_blocks = 0  # `with` blocks that are open
        self._started_at = 0.0

    def __enter__(self) -> None:
        if self._open_blocks == 0:
            self._started_at = time.monotonic()
        self._open_blocks += 1

    def __exit__(self, *_: object) -> None:
        self._open_blocks -= 1
        if self._open_blocks == 0:
            self._seconds += time.monotonic() - self._started_at

    def take(self) -> float:
        """Tokens per second since the last call."""
        now = time.monotonic()
        seconds = self._seconds + (now - self._started_at if self._open_blocks else 0.0)
        rate = self.tokens / seconds if seconds > 0 else 0.0
        self.tokens, self._seconds, self._started_at = 0, 0.0, now
        return rate
