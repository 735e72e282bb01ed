"""`RunConfig`: the settings of a run, once their combination has passed every check."""

from __future__ import annotations

from pydantic import model_validator

from rlframe.config.checks import CHECKS
from rlframe.config.keys import RunKeys


class RunConfig(RunKeys):
    """A whole run. `config.yaml` in the run directory is this value, dumped.

    Raises `ValueError` with one line for each rule in `CHECKS` that the settings break.
    """

    @model_validator(mode="after")
    def _passes_checks(self) -> RunConfig:
        problems = [problem for check in CHECKS if (problem := check(self)) is not None]
        if problems:
            raise ValueError("\n".join(problems))
        return self
