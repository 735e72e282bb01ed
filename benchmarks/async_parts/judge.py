"""`TimedJudge`: a reward worker that takes time, behind the interface of `reward/worker.py`."""

from __future__ import annotations

import asyncio

from rlframe.types import Completion, Prompt, Verdict

RIGHT, WRONG = (Verdict(score=score, status="scored", seconds=0.0, detail="") for score in (1.0, 0.0))


class TimedJudge:
    """Gives a completion with an even number of tokens the score 1, any other 0, so that most groups have signal."""

    def __init__(self, *, seconds: float) -> None:
        """`seconds`: of a verdict; any number of completions at a time."""
        self.seconds = seconds

    async def score(self, names: list[str], prompt: Prompt, completion: Completion) -> dict[str, list[Verdict]]:
        if self.seconds:
            await asyncio.sleep(self.seconds)
        return {name: [WRONG if len(completion.token_ids) % 2 else RIGHT] for name in names}

    async def facts(self) -> dict[str, float]:
        return {}
