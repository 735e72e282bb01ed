"""`Failures`: ends a run whose rewards fail too often, instead of training on the remaining completions."""

from __future__ import annotations

from collections import Counter, deque

from rlframe.errors import RunFailed
from rlframe.types import Verdict

WINDOW = 256  # latest verdicts of a reward, over which its share of failures is taken
LEAST = 16  # verdicts before the share is meaningful


class RewardsFail(RunFailed):
    """A reward failed on more than the configured share of completions; the message lists the reasons."""


class Failures:
    """The latest verdicts of each reward."""

    def __init__(self, max_share: float) -> None:
        """`max_share`: largest share of `failed` verdicts; 1: no limit."""
        self.max_share = max_share
        self._latest: dict[str, deque[str | None]] = {}  # reward name -> reasons; None: not a failure

    def note(self, name: str, verdict: Verdict) -> None:
        """Raises RewardsFail if too many of the latest verdicts of reward `name` failed."""
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
    """The commonest reasons. Equal last lines are one reason: prompts and traces differ, the error does not."""
    texts = [reason.rstrip() or "no reason given" for reason in reasons]
    examples = {text.splitlines()[-1]: text for text in texts}
    counts = Counter(text.splitlines()[-1] for text in texts)
    return "\n".join(f"{count} times: {examples[last_line]}" for last_line, count in counts.most_common(shown))
