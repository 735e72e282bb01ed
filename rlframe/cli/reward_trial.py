"""`rlframe reward try`: scores saved completions with a new reward and prints a summary of the verdicts."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from dataclasses import dataclass
from statistics import fmean, quantiles
from typing import TYPE_CHECKING

from rlframe.errors import Hung
from rlframe.record.text import printable
from rlframe.reward.base import Reward
from rlframe.reward.worker import RewardWorker
from rlframe.types import Completion, Prompt, ScoredGroup, Verdict

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

BINS = 10
BAR = 40  # cells
SHOWN = 5  # completions in each section: most rewarded, least rewarded, slowest, failed
TEXT = 160  # characters shown of a completion


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """A completion and its verdict by the new reward."""

    prompt: Prompt
    completion: Completion
    verdict: Verdict


def score(reward: Reward, groups: list[ScoredGroup], timeout_s: float) -> list[Tried]:
    """The verdict of every completion, by the same worker that a run uses. Raises TimeoutError if the reward hangs."""

    async def run() -> list[Tried]:
        worker = RewardWorker("trial", {"tried": reward}, timeout_s)
        try:
            return [trial for group in groups for trial in await _score_group(worker, reward, group)]
        except Hung as error:
            raise TimeoutError(f"the reward did not come back within {timeout_s:g} s") from error
        finally:
            await worker.close()

    return asyncio.run(run())


async def _score_group(worker: RewardWorker, reward: Reward, group: ScoredGroup) -> list[Tried]:
    prompt, completions = group.group.prompt, group.group.completions
    if reward.looks_at_group():
        verdicts = (await worker.score_group(["tried"], group.group, group.verdicts))["tried"]
    else:
        calls = [worker.score(["tried"], prompt, completion) for completion in completions]
        verdicts = [answer["tried"][0] for answer in await asyncio.gather(*calls)]
    pairs = zip(completions, verdicts, strict=True)
    return [Tried(prompt=prompt, completion=completion, verdict=verdict) for completion, verdict in pairs]


def without_tokens(groups: list[ScoredGroup]) -> int:
    """Completions with a text and no tokens: an OpenAI-compatible endpoint has sampled them."""
    return sum(
        bool(completion.text) and not len(completion.token_ids)
        for group in groups
        for completion in group.group.completions
    )


def show(tried: list[Tried], console: Console) -> None:
    """Prints counts, a histogram of scores, and the most rewarded, least rewarded, slowest and failed completions."""
    from rich.rule import Rule

    by_score = sorted(
        (trial for trial in tried if trial.verdict.score is not None), key=lambda trial: trial.verdict.score or 0.0
    )
    failed = [trial for trial in tried if trial.verdict.status == "failed"]
    scores = [trial.verdict.score or 0.0 for trial in by_score]
    console.print(_headline(tried, scores))
    if scores:
        console.print(histogram(scores))
    sections = {
        "most rewarded": by_score[::-1][:SHOWN],
        "least rewarded": by_score[:SHOWN],
        "slowest": sorted(tried, key=lambda trial: -trial.verdict.seconds)[:SHOWN],
        "failed": failed[:SHOWN],
    }
    for title, section in sections.items():
        if section:
            console.print(Rule(title, align="left", style="dim"))
            console.print(_table(section))


def histogram(scores: list[float]) -> str:
    """Counts of scores in BINS intervals, or of each value if there are at most BINS different values.

    >>> print(histogram([0.0, 1.0, 1.0]))
           0      1  ━━━━━━━━━━━━━━━━━━━━
           1      2  ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━
    """
    values = sorted(set(scores))
    if len(values) <= BINS:
        counts = Counter(scores)
        bars = [(f"{value:.4g}", counts[value]) for value in values]
    else:
        low, high = values[0], values[-1]
        width = (high - low) / BINS
        counts = Counter(min(BINS - 1, math.floor((score - low) / width)) for score in scores)
        bars = [(f"{low + bin_index * width:.4g}", counts[bin_index]) for bin_index in range(BINS)]
    highest = max(count for _, count in bars)
    return "\n".join(f"{label:>8} {count:>6}  {'━' * round(BAR * count / highest)}".rstrip() for label, count in bars)


def _headline(tried: list[Tried], scores: list[float]) -> str:
    statuses = Counter(trial.verdict.status for trial in tried)
    seconds = [trial.verdict.seconds for trial in tried]
    percentiles = quantiles(seconds, n=100) if len(seconds) > 1 else seconds * 99
    p50, p99 = percentiles[49], percentiles[98]
    status_counts = ", ".join(f"{count} {status}" for status, count in statuses.most_common())
    mean = f"; mean score {fmean(scores):.4g}" if scores else ""
    return (
        f"{len(tried)} completions: {status_counts}{mean}; {p50 * 1e3:.3g} ms each (median), {p99 * 1e3:.3g} ms (99 %)"
    )


def _table(section: list[Tried]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for trial in section:
        verdict = trial.verdict
        score = "failed" if verdict.score is None else f"{verdict.score:.4g}"
        text = " ".join(trial.completion.text.split())
        excerpt = printable(text[:TEXT]) + ("…" if len(text) > TEXT else "")
        detail = [printable(line) for line in verdict.detail.strip().splitlines()]
        summary = f"\n{detail[0]} … {detail[-1]}" if len(detail) > 1 else f"\n{detail[0]}" if detail else ""
        table.add_row(
            Text(score, "bold"),
            Text(f"{verdict.seconds * 1e3:.3g} ms", "dim"),
            Text(printable(trial.prompt.id), "dim"),
            Text(excerpt + summary),
        )
    return table
