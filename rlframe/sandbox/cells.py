"""`Cells`: a Python notebook in the sandbox, for example the tool of an agent.

Every cell gets a result: prints, the value of the last expression, an error. An exception ends the cell only. A crash
or an exceeded bound ends the session, and all variables are lost. As in any notebook, a cell can change how later cells
of its session behave. No cell reaches another session or process.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlframe.sandbox.program import Status
from rlframe.sandbox.sandbox import Sandbox
from rlframe.sandbox.session import SessionEnded

NOTEBOOK = Path(__file__).with_name("notebook.py").read_text()
MIN_OUTPUT_BYTES = 1000  # the smallest result, all of it cut, has some 300
TEXTS = {"printed": str, "background": str, "value": str | None, "error": str | None}


@dataclass(frozen=True, slots=True, kw_only=True)
class CellResult:
    """The result of a cell. All texts come from untrusted code. A long text is cut in the middle, with a line such as
    `[... 1501 bytes cut ...]`.

    >>> cells.run("print('hello')\\n6 * 7")
    CellResult(status='returned', printed='hello\\n', background='', value='42', error=None, session_is_over=False)
    """

    status: Status  # returned; raised: see `error`; else the session is over
    printed: str  # stdout and stderr, in the order of writing
    background: str  # prints of earlier cells' threads since the last cell's end
    value: str | None  # representation of the last expression's value; None without an expression, and for None
    error: str | None  # traceback, or how the session ended
    session_is_over: bool  # the variables are lost, and later cells are skipped


class Cells:
    """Runs cells one after the other in one namespace. Bounds: `case_s`, `output_bytes` for a cell; `program_s`,
    `memory_mib`, `max_cells` for the session.

    >>> with Cells(sandbox, max_cells=100) as cells:
    ...     cells.run("x = 6")
    ...     cells.run("x * 7").value
    '42'
    """

    def __init__(self, sandbox: Sandbox, max_cells: int) -> None:
        """Raises SandboxUnavailable, SandboxFailed, and ValueError for too small a bound on output."""
        max_bytes = sandbox.limits.output_bytes
        if max_bytes < MIN_OUTPUT_BYTES:
            raise ValueError(f"output_bytes={max_bytes} cannot hold a cell's result: give {MIN_OUTPUT_BYTES} or more")
        self._limits = sandbox.limits
        self._session = sandbox.session(f"{NOTEBOOK}\n\nserve(receive, reply, {max_bytes})\n", max_cells)
        self._end: Status | None = None

    def run(self, source: str) -> CellResult:
        """Runs a cell. Raises SandboxFailed where the sandbox itself broke; the session is then over, too."""
        if self._end is not None:
            return self._over("skipped", f"an earlier cell ended it ({self._end})")
        try:
            reply = self._session.ask(json.dumps(source))
        except SessionEnded as ended:
            return self._over(ended.outcome.status, f"{ended.outcome.status}: {ended.outcome.detail}")
        texts = _texts(reply)
        if texts is None:
            self.close()
            return self._over("raised", "the cell falsified its result")
        return CellResult(status="returned" if texts["error"] is None else "raised", session_is_over=False, **texts)

    def _over(self, status: Status, reason: str) -> CellResult:
        self._end = self._end or status
        error = f"the session is over: {reason}"
        return CellResult(status=status, printed="", background="", value=None, error=error, session_is_over=True)

    def close(self) -> None:
        """Ends the session. The sandbox then runs other programs."""
        self._session.close()

    def __enter__(self) -> Cells:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _texts(reply: str) -> dict[str, Any] | None:
    """The texts of a result; None for a reply that the notebook's own code cannot have written."""
    try:
        texts = json.loads(reply)
    except (ValueError, RecursionError):
        return None
    is_result = isinstance(texts, dict) and texts.keys() == TEXTS.keys()
    return texts if is_result and all(isinstance(texts[name], kind) for name, kind in TEXTS.items()) else None
