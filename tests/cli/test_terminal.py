"""The command at a terminal: no library's question is ever waited for, and no text of a model steers the terminal."""

import json
import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlframe.cli import exits
from rlframe.cli.main import main

WITHIN_S = 240.0  # imports take most of it on a busy machine; the libraries' own questions wait for ever, or 15 s each
REMOTE = """
import pathlib
pathlib.Path({marker!r}).write_text("ran")
from transformers import PreTrainedConfig
class Config(PreTrainedConfig):
    model_type = "walls_remote"
"""


@pytest.fixture
def remote_model(tmp_path: Path) -> Path:
    """A Hugging Face folder that brings code of its own, which leaves a file behind when it runs."""
    folder = tmp_path / "remote"
    folder.mkdir()
    (folder / "remote.py").write_text(REMOTE.format(marker=str(tmp_path / "marker")))
    auto_map = {"AutoConfig": "remote.Config", "AutoModelForCausalLM": "remote.Model"}
    (folder / "config.json").write_text(json.dumps({"model_type": "walls_remote", "auto_map": auto_map}))
    return folder


def at_a_terminal(folder: Path, *arguments: str) -> tuple[int, str]:
    """Exit code and output of `rlframe ...` whose stdin, stdout and stderr are a terminal where nobody types."""
    controller, terminal = pty.openpty()
    hidden = {"WANDB_API_KEY", "WANDB_MODE", "WANDB_IDENTITY_TOKEN_FILE"}
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment |= {"HOME": str(folder), "NETRC": str(folder / "netrc"), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "rlframe.cli", *arguments]
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), terminal)
    process = subprocess.Popen(command, **streams, cwd=folder, env=environment, start_new_session=True)
    os.close(terminal)
    output, end = b"", time.monotonic() + WITHIN_S
    os.set_blocking(controller, False)
    try:
        while process.poll() is None:
            assert time.monotonic() < end, f"it still waits: {output.decode(errors='replace')}"
            time.sleep(0.05)
            output += read(controller)
        return process.returncode, (output + read(controller)).decode(errors="replace")
    finally:
        process.kill()
        process.wait()
        os.close(controller)


def read(controller: int) -> bytes:
    try:
        return os.read(controller, 1 << 16)
    except OSError:  # nothing to read, or the other side is closed
        return b""


def test_a_model_with_code_of_its_own_is_refused_without_a_question(remote_model: Path, tmp_path: Path):
    code, output = at_a_terminal(tmp_path, "train", f"model.path={remote_model}", "rollout.max_tokens=16")
    assert code == exits.CONFIG, output
    text = " ".join(output.split())
    assert "loading it would run Python code of the model's own (remote.Config, remote.Model)" in text
    assert "[y/N]" not in text
    assert not (tmp_path / "marker").exists()


def test_wandb_without_a_key_is_refused_before_anything_starts(model_folder: Path, tmp_path: Path):
    pytest.importorskip("wandb", reason="an optional extra")
    code, output = at_a_terminal(tmp_path, "train", f"model.path={model_folder}", "tracking=wandb", "run_dir=first")
    assert code == exits.CONFIG, output
    assert "tracking.mode: online finds no key" in " ".join(output.split())
    assert not (tmp_path / "first").exists()


def test_a_library_that_asks_gets_the_end_of_the_input(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (tmp_path / "asks.py").write_text("""
from rlframe.reward import Reward
class Asks(Reward):
    answer: str = input("Do you wish to run the custom code? [y/N] ")
    def __call__(self, prompt, completion): return 0.0
""")
    code, output = at_a_terminal(tmp_path, "reward", "try", f"{tmp_path}/asks.py:Asks", "--rollouts", "nowhere")
    assert code == 1
    assert "EOFError" in output


def test_a_library_that_asks_for_a_password_gets_an_error(tmp_path: Path):
    (tmp_path / "asks.py").write_text("""
import getpass
from rlframe.reward import Reward
class Asks(Reward):
    answer: str = getpass.getpass("API key: ")
    def __call__(self, prompt, completion): return 0.0
""")
    code, output = at_a_terminal(tmp_path, "reward", "try", f"{tmp_path}/asks.py:Asks", "--rollouts", "nowhere")
    assert code == 1
    assert "a library asks 'API key: '" in output


def test_a_models_text_in_an_error_or_traceback_steers_no_terminal(monkeypatch, capsys: pytest.CaptureFixture[str]):
    exits.complain("it wrote \x1b[2J at https://me:pw@host")
    exits.refuse("This config cannot run", "row 3: \x1b]0;title\x07")
    try:
        raise ValueError("the answer \x1b[2J")
    except ValueError as error:
        exits.complain_of_exception(type(error), error, error.__traceback__)
    shown = capsys.readouterr().err
    assert "\x1b" not in shown and "\x07" not in shown
    assert "it wrote ·[2J at https://***@host" in shown
    assert "Traceback" in shown and "ValueError: the answer ·[2J" in shown


def test_uncaught_errors_of_the_command_take_that_way(monkeypatch: pytest.MonkeyPatch):
    kept = os.dup(0)
    monkeypatch.setattr(sys, "argv", ["rlframe", "--version"])
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    try:
        main()
        assert sys.excepthook is exits.complain_of_exception
        assert os.read(0, 1) == b""
    finally:
        os.dup2(kept, 0)
        os.close(kept)
