"""`planned`: the plan of a run at its start, before its actors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlframe.plan.check import check_plan
from rlframe.plan.nodes import machines_of

if TYPE_CHECKING:
    from rlframe.cluster.start import JoinedCluster
    from rlframe.config.run import RunConfig
    from rlframe.record.console import Console


def planned(run: RunConfig, console: Console, joined: JoinedCluster | None = None) -> None:
    """Prints the plan's last line, once: on this machine's memory, or for a running cluster once it is `joined`.

    Raises ConfigError for a run that cannot fit.
    """
    if (joined is None) != (run.cluster.address is None):
        return
    checked = check_plan(run, None if joined is None else machines_of(joined.nodes()))
    (console.note if checked.fits else console.warn)(checked.line)
