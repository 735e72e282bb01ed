"""`rlframe scale RUN_DIR rollout=N`: asks a run for another number of engines."""

from __future__ import annotations

import time
from pathlib import Path

from rlframe.cli import exits
from rlframe.record import requests
from rlframe.record.directory import RunDir
from rlframe.record.requests import Answer

USAGE = "usage: rlframe scale RUN_DIR rollout=N; rollout=auto lets the run choose the number of engines again"
HEADLINE = "The run cannot be scaled"
KEY = "rollout"
ANSWER_S = 20.0  # a run looks once a second
POLL_S = 0.1


def main(arguments: list[str]) -> int:
    """Sends the request, and prints the run's answer; returns the exit code."""
    match [argument.partition("=") for argument in arguments]:
        case [(path, "", ""), (name, "=", wish)] if not path.startswith("-") and wish:
            if name != KEY:
                return exits.refuse(HEADLINE, f"{name}: there is no such key; {USAGE}")
            return _scale(RunDir(Path(path)), wish)
        case _:
            return exits.refuse("rlframe scale", USAGE)


def _scale(files: RunDir, wish: str) -> int:
    if not files.holds_a_run():
        return exits.refuse(HEADLINE, f"{files.path}: the folder holds no run; give the run_dir of a run")
    try:
        answer = _ask(files.requests, wish)
    except FileNotFoundError:
        ended = f"{files.path}: the run has ended, or has not started its engines; see rlframe status {files.path}"
        return exits.refuse(HEADLINE, ended)
    if answer is None:
        return exits.refuse(
            HEADLINE,
            f"{files.path}: the run has not answered for {ANSWER_S:g} s, so its driver is dead or hangs; see "
            f"rlframe status {files.path}, and go on with rlframe train resume={files.path}",
        )
    if answer.refused:
        return exits.refuse(HEADLINE, answer.text)
    print(answer.text)
    return 0


def _ask(folder: Path, wish: str) -> Answer | None:
    """The run's answer; None: it does not answer. Raises FileNotFoundError for a run that has ended."""
    request = requests.send(folder, {KEY: wish})
    deadline = time.monotonic() + ANSWER_S
    try:
        while (answer := requests.answer_to(request)) is None and time.monotonic() < deadline:
            if not folder.exists():
                raise FileNotFoundError(folder)
            time.sleep(POLL_S)
        return answer
    finally:
        requests.withdraw(request)
