"""What the command answers, and with which exit code. No test here starts a run."""

import subprocess
import sys
from pathlib import Path

import pytest

import rlframe
from rlframe.cli import main as cli
from rlframe.config.compose import load, save


@pytest.fixture
def command(monkeypatch, capfd, tmp_path):
    """`command("train", "steps=3")` -> exit code, stdout, stderr; in an empty working directory."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # as the command sets it; unset again afterwards

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["rlframe", *arguments])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        assert list(here.iterdir()) == []  # nothing is left behind by a command that did not run
        return code, *capfd.readouterr()

    return run


def test_the_installed_command_tells_its_version():
    answer = subprocess.run([Path(sys.executable).parent / "rlframe", "--version"], capture_output=True, text=True)
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, f"{rlframe.__version__}\n", "")


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_without_a_verb_the_command_says_which_there_are(command, arguments):
    code, out, err = command(*arguments)
    assert (code, err) == (0, "")
    assert "rlframe train experiment=NAME" in out


def test_an_unknown_verb_is_named_and_the_known_ones_are_shown(command):
    code, out, err = command("trian")
    assert (code, out) == (2, "")
    assert err.startswith("rlframe: there is no verb 'trian'\n")
    assert "rlframe train" in err


@pytest.mark.parametrize(
    "override, answer",
    [
        ("stepz=3", "stepz: there is no such key; did you mean steps?"),
        ("learner.lrr=1", "learner.lrr: there is no such key; did you mean learner.lr"),
        ("rollout.groupsize=4", "rollout.groupsize: there is no such key; did you mean rollout.group_size"),
        ("qqqqqqqq=1", "qqqqqqqq: there is no such key\n"),
    ],
)
def test_an_unknown_key_is_named_with_those_that_come_nearest(command, override, answer):
    code, out, err = command("train", override)
    assert (code, out) == (2, "")
    assert f"This config cannot run:\n  {answer}" in err


@pytest.mark.parametrize("choice, known", [("experiment=nope", "smollm2_arithmetic"), ("algorithm=ppo", "dapo")])
def test_an_unknown_choice_is_named_with_those_there_are(command, choice, known):
    code, _, err = command("train", choice)
    assert code == 2
    assert f"Could not find '{choice.replace('=', '/')}'" in err
    assert known in err


def test_a_value_out_of_range_ends_with_exit_code_2_before_anything_starts(command, model_folder):
    code, out, err = command("train", f"model.path={model_folder}", "rollout.group_size=1")
    assert (code, out) == (2, "")
    assert "  rollout.group_size: Input should be greater than or equal to 2, not 1\n" in err


def test_a_value_that_is_missing_is_asked_for(command):
    code, _, err = command("train")
    assert code == 2
    assert "  model.path: has no value; set model.path=..., or pick an experiment=...\n" in err


def test_the_composed_config_can_be_looked_at_without_running_it(command):
    code, out, _ = command("train", "experiment=smollm2_arithmetic", "steps=3", "--cfg", "job")
    assert code == 0
    assert "steps: 3\n" in out
    assert "clip_high: 0.28\n" in out


def test_a_folder_that_holds_a_run_is_refused_with_the_way_to_go_on(command, model_folder, tmp_path):
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (run_dir / "metrics.jsonl").write_text('{"step": 1}\n')
    code, out, err = command("train", f"model.path={model_folder}", f"run_dir={run_dir}")
    assert (code, out) == (2, "")
    assert f"run_dir: {run_dir} holds a run already; go on with it by resume={run_dir}" in err
    assert (run_dir / "metrics.jsonl").read_text() == '{"step": 1}\n'


def test_there_is_no_going_on_where_there_is_no_run(command, tmp_path):
    code, _, err = command("train", f"resume={tmp_path / 'nothing'}")
    assert code == 2
    assert f"resume: {tmp_path / 'nothing'} holds no run: there is no {tmp_path / 'nothing' / 'config.yaml'}" in err


def test_a_resumed_run_is_checked_with_its_saved_values_and_the_new_one(command, composed, tmp_path):
    saved = load(composed("prompts_per_step=3", "rollout.group_size=5"))
    save(saved, tmp_path / "config.yaml")
    code, _, err = command("train", f"resume={tmp_path}", "learner.ranks=2")
    assert code == 2
    assert "learner.ranks: 15 completions a step (prompts_per_step=3 x rollout.group_size=5) do not divide" in err
