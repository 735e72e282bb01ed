"""`Filters`: the reason for which an item is dropped, looked at alone."""

from __future__ import annotations

from rlframe.select.config import Keep, within
from rlframe.select.items import Item, question_of
from rlframe.types import ScoredGroup, Verdict

CUT_OFF, NO_VERDICT = "cut off", "no verdict"


class Filters:
    """Checks items in a fixed order, so that each dropped item has one reason."""

    def __init__(self, keep: Keep) -> None:
        self.keep = keep
        self._language = keep.language_reward()

    def reason(self, item: Item) -> str | None:
        """The first reason against an item; None for an item that may stay. Written rows have no scores to check."""
        if self.keep.tasks is not None and item.task not in self.keep.tasks:
            return "other task"
        if item.completion is not None and (reason := self._of_completion(item, item.completion)):
            return reason
        if not item.text.strip():
            return "empty"
        if self.keep.tokens is not None and item.tokens is not None and not within(item.tokens, self.keep.tokens):
            low, _ = self.keep.tokens
            return "too short" if low is not None and item.tokens < low else "too long"
        return "other language" if self._language and self._share(item) < self.keep.language_share else None

    def _of_completion(self, item: Item, scored: ScoredGroup) -> str | None:
        if scored.finish_reasons[0] not in self.keep.finish_reasons:
            return CUT_OFF if scored.finish_reasons[0] == "length" else "other finish reason"
        if len(scored.group.trajectories[0].turns) > 1:
            return "several turns"
        if (reward := item.score(None)) is None and self.keep.reward is not None:
            return NO_VERDICT
        if reward is not None and not within(reward, self.keep.reward):
            return "reward"
        for name, rule in self.keep.verdicts.items():
            score = item.score(name)
            if name not in scored.verdicts or (score is None and rule.score is not None):
                return NO_VERDICT
            wrong_status = rule.status is not None and scored.verdicts[name][0].status not in rule.status
            if wrong_status or (score is not None and not within(score, rule.score)):
                return f"verdict {name}"
        if item.tokens is None and self.keep.tokens is not None:
            raise ValueError(f"{item.where}: the completion has no token ids, so keep.tokens cannot count them")
        return None

    def _share(self, item: Item) -> float:
        """Share of the words that are in the language that is kept."""
        assert self._language is not None
        verdict = self._language.share(question_of(item.messages), item.text)
        return verdict.score or 0.0 if isinstance(verdict, Verdict) else verdict
