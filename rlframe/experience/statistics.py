"""Statistics of rollouts: the metrics of a step's groups. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from statistics import fmean, pstdev

from rlframe.algorithm.rate import Truncated
from rlframe.training import GroupRecord
from rlframe.types import TEACHER


def rollout_metrics(
    groups: Sequence[GroupRecord], version: int, truncated: Truncated = "train", oldest_version: int | None = None
) -> dict[str, float]:
    """Metrics of the groups that policy `version` is trained on.

    A mean over nothing, such as the mean reward when every reward failed, is left out. `rollout/masked` is the share of
    completions without a loss because they were cut off, and `truncated` does not train on such completions.
    `rollout/masked_tokens` is the share of tokens of versions before `oldest_version`, which have no loss either.
    """
    trajectories = [trajectory for group in groups for trajectory in group.trajectories]
    lengths = [trajectory.sampled_tokens for trajectory in trajectories]
    metrics: dict[str, float] = {"rollout/tokens": sum(lengths)}
    if trajectories:
        metrics["rollout/prompt_tokens"] = fmean(group.prompt_tokens for group in groups)
        prompt_tokens = sum(group.prompt_tokens * len(group.trajectories) for group in groups)
        cached = sum(trajectory.cached_tokens for trajectory in trajectories)
        metrics["rollout/prompt_cached"] = cached / prompt_tokens
        metrics["rollout/completion_tokens"] = fmean(lengths)
        metrics["rollout/truncated"] = fmean(trajectory.finish_reason == "length" for trajectory in trajectories)
        metrics["rollout/masked"] = 0.0 if truncated == "train" else metrics["rollout/truncated"]
    tokens_by_age: Counter[int] = Counter()
    for trajectory in trajectories:
        for span in trajectory.versions:
            tokens_by_age[version - span.version] += span.end - span.start
    max_age = None if oldest_version is None else version - oldest_version
    return _reward_metrics(groups) | _teacher_metrics(groups) | metrics | _ages(tokens_by_age, max_age)


def _reward_metrics(groups: Sequence[GroupRecord]) -> dict[str, float]:
    group_rewards = [[reward for reward in scored.rewards if reward is not None] for scored in groups]  # [P][<= G]
    named_verdicts = [
        (name, verdict) for scored in groups for name, verdicts in scored.verdicts.items() for verdict in verdicts
    ]
    metrics: dict[str, float] = {}
    rewards = [reward for rewards in group_rewards for reward in rewards]
    if rewards:
        metrics["reward/mean"] = fmean(rewards)
        metrics["reward/std"] = pstdev(rewards)
    for name in dict.fromkeys(name for name, _ in named_verdicts if not name.startswith(TEACHER)):
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


def _teacher_metrics(groups: Sequence[GroupRecord]) -> dict[str, float]:
    """Of each teacher: the mean of log p_student - log p_teacher over the sampled tokens, which estimates the KL
    divergence of the student from the teacher; failed verdicts; seconds from a question to its answer.
    """
    metrics: dict[str, float] = {}
    for name in dict.fromkeys(name for group in groups for name in group.verdicts if name.startswith(TEACHER)):
        judged = [
            (verdict, length)
            for group in groups
            for verdict, length in zip(group.verdicts.get(name, []), group.lengths, strict=name in group.verdicts)
        ]
        scored = [(verdict.score, length) for verdict, length in judged if verdict.score is not None]
        if tokens := sum(length for _, length in scored):
            metrics[f"{name}/kl"] = -sum(score for score, _ in scored) / tokens
        metrics[f"{name}/failed"] = fmean(verdict.status == "failed" for verdict, _ in judged)
        metrics[f"{name}/seconds"] = fmean(verdict.seconds for verdict, _ in judged)
    return metrics


def _ages(tokens_by_age: Counter[int], max_age: int | None) -> dict[str, float]:
    """Age of the tokens in policy versions, over tokens, since one completion can span versions.

    `rollout/age_*` are shares of all tokens. Ages without a token are left out. `max_age`: of tokens with a loss.
    """
    total = tokens_by_age.total()
    if not total:
        return {}
    metrics = {
        "rollout/staleness_mean": sum(age * tokens for age, tokens in tokens_by_age.items()) / total,
        "rollout/staleness_max": max(age for age, tokens in tokens_by_age.items() if tokens),
    }
    shares: defaultdict[str, float] = defaultdict(float)
    for age, tokens in sorted(tokens_by_age.items()):
        shares[f"rollout/age_{_age_range(age)}"] += tokens / total
    if max_age is not None:
        shares["rollout/masked_tokens"] = sum(tokens for age, tokens in tokens_by_age.items() if age > max_age) / total
    return metrics | shares


def _age_range(age: int) -> str:
    """The name of the range of ages that a token's age belongs to."""
    if age <= 4:
        return str(age)
    return "5_8" if age <= 8 else "9_16" if age <= 16 else "over_16"
