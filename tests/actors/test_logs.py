"""An actor's file holds what its process and its child processes print, and that of its predecessors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from rlframe.actors.logs import LAST_LINES, VARIABLE, environment, kept_in, last_lines

TALKER = """
import os, subprocess, sys
from rlframe.actors.logs import redirect

redirect("rollout-0")
print("of Python", flush=True)
subprocess.run(["sh", "-c", "echo of a child; echo of its stderr >&2"])
os.write(2, b"my last words\\n")
os._exit(1)
"""


def talk(folder: Path) -> tuple[int, str]:
    """Pid, and the rest of the output, of a process with a file in the folder."""
    variables = os.environ | {VARIABLE: str(folder)}
    with subprocess.Popen([sys.executable, "-c", TALKER], stdout=-1, stderr=-2, text=True, env=variables) as process:
        output, _ = process.communicate()
    return process.pid, output


def test_the_file_gets_the_output_of_a_process_and_its_children(tmp_path: Path):
    file = tmp_path / "logs" / "rollout-0.log"
    pid, output = talk(tmp_path / "logs")
    assert output == f"the output goes to {file} from here on\n"
    header, *lines = file.read_text().splitlines()
    assert header.startswith(f"=== pid {pid} on ")
    assert lines == ["of Python", "of a child", "of its stderr", "my last words"]


def test_a_successor_appends_and_each_process_has_its_own_last_lines(tmp_path: Path):
    file = tmp_path / "rollout-0.log"
    pids = [talk(tmp_path)[0] for _ in range(2)]
    with file.open("a") as output:
        output.write("of the last one\n")
    with kept_in(tmp_path):
        assert last_lines("rollout-0", pids[0])[-1] == "my last words"
        assert last_lines("rollout-0", pids[1])[-1] == "of the last one"


def test_of_a_long_output_the_end_is_found_without_its_header(tmp_path: Path):
    file = tmp_path / "rollout-0.log"
    file.write_text("=== pid 7 on here, now\n" + "".join(f"line {index}\n" for index in range(200_000)))
    with kept_in(tmp_path):
        lines = last_lines("rollout-0", 7)
    assert len(lines) == LAST_LINES and lines[-1] == "line 199999"


def test_without_a_file_or_a_folder_there_are_no_last_lines(tmp_path: Path):
    with kept_in(tmp_path):
        assert last_lines("rollout-0", 1) == []
    assert last_lines("rollout-0", 1) == [] and environment() == {}


def test_where_the_file_cannot_be_written_the_output_stays(tmp_path: Path):
    (tmp_path / "logs").write_text("no folder")
    _, output = talk(tmp_path / "logs")
    assert "rollout-0.log cannot be written" in output and "my last words" in output
