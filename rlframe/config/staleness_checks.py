"""Combinations of settings that cannot work under `max_staleness` and `late`."""

from __future__ import annotations

from collections.abc import Callable

from rlframe.config.keys import RunKeys


def late_prompts_need_staleness(run: RunKeys) -> str | None:
    if run.late == "wait" or run.max_staleness:
        return None
    remedy = "use late=wait" if run.placement == "colocated" else "use late=wait, or max_staleness=1 or more"
    return (
        f"late: {run.late} is for prompts that take longer than max_staleness steps, and with max_staleness=0 every "
        f"step samples its own prompts and waits for them; {remedy}"
    )


STALENESS_CHECKS: list[Callable[[RunKeys], str | None]] = [late_prompts_need_staleness]
