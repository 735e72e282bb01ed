"""Rules on `late` and `max_staleness`: every refusal names the key, the reason and the remedy."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from omegaconf import DictConfig

from rlframe.config.compose import load
from rlframe.errors import ConfigError

Composed = Callable[..., DictConfig]


@pytest.mark.parametrize("late", ["wait", "mask", "keep"])
def test_late_prompts_have_three_treatments(composed: Composed, late: str) -> None:
    run = load(composed(f"late={late}", "max_staleness=2", "rollout.ahead=0.0"))
    assert (run.late, run.max_staleness, run.rollout.ahead) == (late, 2, 0.0)


def test_an_on_policy_run_ignores_completions_ahead(composed: Composed) -> None:
    assert load(composed("rollout.ahead=2.5")).rollout.ahead == 2.5


@pytest.mark.parametrize("max_staleness", [0, 2])
def test_only_keep_trains_on_tokens_older_than_max_staleness(composed: Composed, max_staleness: int) -> None:
    runs = {late: load(composed(f"late={late}", f"max_staleness={max_staleness}")) for late in ("wait", "mask", "keep")}
    oldest = {late: run.oldest_version(7) for late, run in runs.items()}
    assert oldest == {"wait": 7 - max_staleness, "mask": 7 - max_staleness, "keep": None}


@pytest.mark.parametrize(
    "settings, message",
    [
        (["late=mask", "placement=colocated", "max_staleness=1"], "max_staleness: with placement=colocated engines"),
        (["late=drop"], "late: Input should be 'wait', 'mask' or 'keep', not 'drop'"),
        (["rollout.ahead=-0.1"], "rollout.ahead: Input should be greater than or equal to 0, not -0.1"),
        (["rollout.ahead=nan"], "rollout.ahead: Input should be a finite number, not nan"),
    ],
)
def test_keys_that_contradict_each_other_are_refused(composed: Composed, settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=f"(?m)^{re.escape(message)}") as refusal:
        load(composed(*settings))
    assert len(str(refusal.value).splitlines()) == 1
