"""`Checker`: a program of the reference that decides whether an output is right, in a sandbox of its own."""

from __future__ import annotations

import json
from typing import Any

from rlframe.reward.fault import Fault
from rlframe.reward.syntax import bound_names, outside_of_definitions, tree_of
from rlframe.sandbox import Sandbox
from rlframe.sandbox.session import Session, SessionEnded
from rlframe.sandbox.values import encode

MAX_ASKS = 100_000  # outputs of a program that a session checks
CHECKER_SIDE = """from rlframe.sandbox.exchange_checker import run_checker
run_checker(receive, reply, {source!r})
"""


def check_of(source: str) -> None:
    """Raises ValueError for a checker that is no Python or defines no function `check`."""
    names = [name for node in outside_of_definitions(tree_of(source, "checker")) for name in bound_names(node)]
    if "check" not in names:
        raise ValueError("checker: defines no function check(input, output, expected)")


class Checker:
    """The function `check(input, output, expected)`, which returns True for a right output.

    Of a program these are texts; of a function the list of its arguments (or `{"args": …, "kwargs": …}` of a call with
    both), the returned value and `returns`. `expected` is None where the case has none. The program that is checked
    runs elsewhere: only its output comes here.
    """

    def __init__(self, source: str, sandbox: Sandbox) -> None:
        self.source, self.sandbox = source, sandbox
        self._session: Session | None = None

    def fault(self, inputs: Any, output: Any, expected: Any) -> Fault | None:
        """None for a right output. A checker that raises or exceeds a bound on an output calls it wrong."""
        if self._session is None:
            self._session = self.sandbox.session(CHECKER_SIDE.format(source=self.source), MAX_ASKS)
        try:
            is_right, text = json.loads(self._session.ask(encode([inputs, output, expected])))
        except SessionEnded as end:
            self.close()
            return Fault(f"the checker ended on this output: {end}", end.outcome.status == "timeout")
        return None if is_right else Fault(f"the checker says: {text}")

    def close(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None
