"""`Failures`: when rewards fail too often, the run ends with their reasons instead of learning from what is left."""

from __future__ import annotations

from collections import Counter, deque

from rlframe.errors import RunFailed
from rlframe.types import Verdict

WINDOW = 256  # verdicts of a reward that its share of failures is taken over
LEAST = 16  # verdicts before a share says anything


class RewardsFail(RunFailed):
    """A reward has failed on more than the configured share of completions; the message has the reasons."""


class Failures:
    """The latest verdicts of each reward."""

    def __init__(self, max_share: float) -> None:
        """`max_share`: of a reward's verdicts that may be `failed`; 1: any."""
        self.max_share = max_share
        self._latest: dict[str, deque[str | None]] = {}  # reward name -> reason, None where there was no failure

    def note(self, name: str, verdict: Verdict) -> None:
        """Raises RewardsFail once too many of the latest verdicts of `name` failed."""
        latest = self._latest.setdefault(name, deque(maxlen=WINDOW))
        latest.append(verdict.detail if verdict.status == "failed" else None)
        if verdict.status != "failed" or len(latest) < LEAST:
            return
        reasons = [reason for reason in latest if reason is not None]
        if len(reasons) > self.max_share * len(latest):
            raise RewardsFail(
                f"reward {name!r} failed on {len(reasons)} of its last {len(latest)} completions, more than "
                f"reward.max_failed_share={self.max_share:g}. Its reasons, the commonest first:\n{_commonest(reasons)}"
            )


def _commonest(reasons: list[str], shown: int = 3) -> str:
    """Reasons that end in the same line are one: prompts and places differ, the error does not."""
    last_lines = Counter(reason.rstrip().splitlines()[-1] for reason in reasons)
    examples = {reason.rstrip().splitlines()[-1]: reason.rstrip() for reason in reasons}
    return "\n".join(f"{count} times: {examples[line]}" for line, count in last_lines.most_common(shown))
