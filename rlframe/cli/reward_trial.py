"""`rlframe reward try`: a reward on saved completions, and what a person wants to know before a run uses it."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from dataclasses import dataclass
from statistics import fmean, quantiles
from typing import TYPE_CHECKING

from rlframe.errors import Hung
from rlframe.reward.base import Reward
from rlframe.reward.worker import RewardWorker
from rlframe.types import Completion, Prompt, ScoredGroup, Verdict

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

BINS = 10
BAR = 40  # cells
SHOWN = 5  # of the most and the least rewarded, the slowest and the failed
TEXT = 160  # characters of a completion that are shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One completion and the new reward's word on it."""

    prompt: Prompt
    completion: Completion
    verdict: Verdict


def score(reward: Reward, groups: list[ScoredGroup], timeout_s: float) -> list[Tried]:
    """Every completion's verdict, from a worker as a run has it. A reward that hangs is an error: TimeoutError."""

    async def run() -> list[Tried]:
        worker = RewardWorker("trial", {"tried": reward}, timeout_s)
        try:
            return [tried for group in groups for tried in await _score_group(worker, reward, group)]
        except Hung as error:
            raise TimeoutError(f"the reward did not come back within {timeout_s:g} s") from error
        finally:
            await worker.close()

    return asyncio.run(run())


async def _score_group(worker: RewardWorker, reward: Reward, group: ScoredGroup) -> list[Tried]:
    prompt, completions = group.group.prompt, group.group.completions
    if reward.looks_at_group():
        row = (await worker.score_group(["tried"], group.group, group.verdicts))["tried"]
    else:
        calls = [worker.score(["tried"], prompt, completion) for completion in completions]
        row = [answer["tried"][0] for answer in await asyncio.gather(*calls)]
    pairs = zip(completions, row, strict=True)
    return [Tried(prompt=prompt, completion=completion, verdict=verdict) for completion, verdict in pairs]


def show(tried: list[Tried], console: Console) -> None:
    """Distribution, statuses, speed, the slowest, the failures, the most and the least rewarded."""
    from rich.rule import Rule

    by_score = sorted((one for one in tried if one.verdict.score is not None), key=lambda one: one.verdict.score or 0.0)
    failed = [one for one in tried if one.verdict.status == "failed"]
    scores = [one.verdict.score or 0.0 for one in by_score]
    console.print(_headline(tried, scores))
    if scores:
        console.print(histogram(scores))
    sections = {
        "most rewarded": by_score[::-1][:SHOWN],
        "least rewarded": by_score[:SHOWN],
        "slowest": sorted(tried, key=lambda one: -one.verdict.seconds)[:SHOWN],
        "failed": failed[:SHOWN],
    }
    for title, chosen in sections.items():
        if chosen:
            console.print(Rule(title, align="left", style="dim"))
            console.print(_table(chosen))


def histogram(scores: list[float]) -> str:
    """Scores in BINS intervals, or one row a value where there are at most as many values.

    >>> print(histogram([0.0, 1.0, 1.0]))
           0      1  ━━━━━━━━━━━━━━━━━━━━
           1      2  ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━
    """
    values = sorted(set(scores))
    if len(values) <= BINS:
        counts = Counter(scores)
        rows = [(f"{value:.4g}", counts[value]) for value in values]
    else:
        low, high = values[0], values[-1]
        width = (high - low) / BINS
        places = Counter(min(BINS - 1, math.floor((value - low) / width)) for value in scores)
        rows = [(f"{low + place * width:.4g}", places[place]) for place in range(BINS)]
    most = max(count for _, count in rows)
    return "\n".join(f"{label:>8} {count:>6}  {'━' * round(BAR * count / most)}".rstrip() for label, count in rows)


def _headline(tried: list[Tried], scores: list[float]) -> str:
    statuses = Counter(one.verdict.status for one in tried)
    seconds = [one.verdict.seconds for one in tried]
    p50, p99 = (
        (quantiles(seconds, n=100)[place] for place in (49, 98)) if len(seconds) > 1 else (seconds[0], seconds[0])
    )
    told = ", ".join(f"{count} {status}" for status, count in statuses.most_common())
    mean = f"; mean score {fmean(scores):.4g}" if scores else ""
    return f"{len(tried)} completions: {told}{mean}; {p50 * 1e3:.3g} ms each (median), {p99 * 1e3:.3g} ms (99 %)"


def _table(chosen: list[Tried]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for one in chosen:
        verdict = one.verdict
        score = "failed" if verdict.score is None else f"{verdict.score:.4g}"
        text = " ".join(one.completion.text.split())
        shown = _printable(text[:TEXT]) + ("…" if len(text) > TEXT else "")
        detail = [_printable(line) for line in verdict.detail.strip().splitlines()]
        about = Text(
            shown + (f"\n{detail[0]} … {detail[-1]}" if len(detail) > 1 else f"\n{detail[0]}" if detail else "")
        )
        table.add_row(
            Text(score, "bold"), Text(f"{verdict.seconds * 1e3:.3g} ms", "dim"), Text(one.prompt.id, "dim"), about
        )
    return table


def _printable(text: str) -> str:
    """Escape codes that a model wrote, or its program on stderr, would paint the terminal: each is shown as a dot."""
    return "".join(char if char.isprintable() else "·" for char in text)
