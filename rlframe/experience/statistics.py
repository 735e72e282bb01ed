"""Statistics of a step's rollouts. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, pstdev

from rlframe.types import Completion, ScoredGroup


def rollout_metrics(groups: Sequence[ScoredGroup], version: int) -> dict[str, float]:
    """Statistics of the groups that policy `version` is trained on.

    A statistic over nothing (the mean reward where every reward failed) is left out, rather than made up.
    """
    completions = [completion for scored in groups for completion in scored.group.completions]
    lengths = [len(completion.token_ids) for completion in completions]
    metrics: dict[str, float] = {"rollout/tokens": sum(lengths)}
    if completions:
        metrics["rollout/prompt_tokens"] = fmean(len(scored.group.prompt.token_ids) for scored in groups)
        asked = sum(len(scored.group.prompt.token_ids) * len(scored.group.completions) for scored in groups)
        metrics["rollout/prompt_cached"] = sum(completion.cached_tokens for completion in completions) / asked
        metrics["rollout/completion_tokens"] = fmean(lengths)
        metrics["rollout/truncated"] = fmean(completion.finish_reason == "length" for completion in completions)
    return _rewards(groups) | metrics | _staleness(completions, version)


def _rewards(groups: Sequence[ScoredGroup]) -> dict[str, float]:
    known = [[reward for reward in scored.rewards if reward is not None] for scored in groups]  # [P][<= G]
    verdicts = [(name, verdict) for scored in groups for name, row in scored.verdicts.items() for verdict in row]
    metrics: dict[str, float] = {}
    rewards = [reward for row in known for reward in row]
    if rewards:
        metrics["reward/mean"] = fmean(rewards)
        metrics["reward/std"] = pstdev(rewards)
    for name in dict.fromkeys(name for name, _ in verdicts):
        row = [verdict for named, verdict in verdicts if named == name]
        scores = [verdict.score for verdict in row if verdict.score is not None]
        if scores:
            metrics[f"reward/{name}"] = fmean(scores)
        for status in ("unparseable", "timeout", "failed"):
            metrics[f"reward/{name}/{status}"] = fmean(verdict.status == status for verdict in row)
        metrics[f"reward/{name}/seconds_max"] = max(verdict.seconds for verdict in row)
    metrics["reward/failed"] = sum(verdict.status == "failed" for _, verdict in verdicts)
    # Equal rewards have equal advantages, so such a group teaches nothing; one known reward or none does no more.
    metrics["reward/groups_without_signal"] = sum(len(set(row)) <= 1 for row in known)
    return metrics


def _staleness(completions: Sequence[Completion], version: int) -> dict[str, float]:
    """How many versions ago the tokens were drawn; the mean is per token, since one completion can span versions."""
    spans = [span for completion in completions for span in completion.versions]
    tokens = sum(span.end - span.start for span in spans)
    if tokens == 0:
        return {}
    return {
        "rollout/staleness_max": max(version - span.version for span in spans),
        "rollout/staleness_mean": sum((version - span.version) * (span.end - span.start) for span in spans) / tokens,
    }
