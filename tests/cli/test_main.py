"""Output and exit codes of the command. No test here starts a run."""

import subprocess
import sys
from pathlib import Path

import pytest

import rlframe
from rlframe.cli import main as cli
from rlframe.config.compose import load, save
from rlframe.record.manifest import report_on, seal


@pytest.fixture
def command(monkeypatch, capfd, tmp_path):
    """`command("train", "steps=3")` -> exit code, stdout, stderr; in an empty working directory."""
    working_dir = tmp_path / "working_dir"
    working_dir.mkdir()
    monkeypatch.chdir(working_dir)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # as the command sets it; unset after the test

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["rlframe", *arguments])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        assert list(working_dir.iterdir()) == []  # a refused command leaves no files
        return code, *capfd.readouterr()

    return run


def test_the_installed_command_prints_its_version():
    answer = subprocess.run([Path(sys.executable).parent / "rlframe", "--version"], capture_output=True, text=True)
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, f"{rlframe.__version__}\n", "")


def test_version_and_usage_load_no_heavy_library():
    script = "import sys; from rlframe.cli.main import main; sys.argv[1:] = ['help']; main(); print(*sys.modules)"
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    modules = set(answer.stdout.splitlines()[-1].split())
    assert not modules & {"torch", "ray", "vllm", "deepspeed", "omegaconf", "hydra", "pydantic"}


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_without_a_verb_the_command_prints_its_usage(command, arguments):
    code, out, err = command(*arguments)
    assert (code, err) == (0, "")
    assert "rlframe train experiment=NAME" in out


def test_an_unknown_verb_is_refused_with_the_usage(command):
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
def test_an_unknown_key_is_refused_with_the_nearest_keys(command, override, answer):
    code, out, err = command("train", override)
    assert (code, out) == (2, "")
    assert f"This config cannot run:\n  {answer}" in err


@pytest.mark.parametrize("choice, known", [("experiment=nope", "smollm2_arithmetic"), ("algorithm=ppo", "dapo")])
def test_an_unknown_choice_is_refused_with_the_known_choices(command, choice, known):
    code, _, err = command("train", choice)
    assert code == 2
    assert f"Could not find '{choice.replace('=', '/')}'" in err
    assert known in err


def test_a_value_out_of_range_ends_with_exit_code_2(command, model_folder):
    code, out, err = command("train", f"model.path={model_folder}", "rollout.group_size=0")
    assert (code, out) == (2, "")
    assert "  rollout.group_size: Input should be greater than or equal to 1, not 0\n" in err


def test_a_missing_value_is_reported(command):
    code, _, err = command("train")
    assert code == 2
    assert "  model.path: has no value; set model.path=..., or pick an experiment=...\n" in err


def test_cfg_job_prints_the_composed_config(command):
    code, out, _ = command("train", "experiment=smollm2_arithmetic", "steps=3", "--cfg", "job")
    assert code == 0
    assert "steps: 3\n" in out
    assert "clip_high: 0.28\n" in out


def test_a_folder_that_holds_a_run_is_refused_with_a_remedy(command, model_folder, tmp_path):
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (run_dir / "metrics.jsonl").write_text('{"step": 1}\n')
    code, out, err = command("train", f"model.path={model_folder}", f"run_dir={run_dir}")
    assert (code, out) == (2, "")
    assert f"run_dir: {run_dir} holds a run already; go on with it by resume={run_dir}" in err
    assert (run_dir / "metrics.jsonl").read_text() == '{"step": 1}\n'


def test_a_folder_without_a_run_cannot_be_resumed(command, tmp_path):
    code, _, err = command("train", f"resume={tmp_path / 'nothing'}")
    assert code == 2
    assert f"resume: {tmp_path / 'nothing'} holds no run: there is no {tmp_path / 'nothing' / 'config.yaml'}" in err


def test_auto_needs_a_folder_that_is_the_same_each_time(command, model_folder):
    code, _, err = command("train", f"model.path={model_folder}", "resume=auto")
    assert code == 2
    assert "resume: auto goes on with the run in run_dir, and the default folder is a new one each time" in err


@pytest.fixture
def started(monkeypatch):
    """The configs of the runs that the command starts, which take no step."""
    runs = []
    monkeypatch.setattr("rlframe.train.loop.train", runs.append)
    return runs


def test_auto_starts_a_run_goes_on_with_it_and_ends_when_complete(command, started, model_folder, tmp_path):
    run_dir = tmp_path / "run"
    same = ("train", f"model.path={model_folder}", "steps=3", f"run_dir={run_dir}", "resume=auto", "evaluate.every=3")
    assert command(*same)[0] == 0
    run_dir.mkdir()
    save(started[0], run_dir / "config.yaml")  # the run died before its first step
    assert command(*same)[0] == 0
    assert [run.resume for run in started] == [None, str(run_dir)]

    (run_dir / "metrics.jsonl").write_text('{"step": 3}\n')
    assert command(*same)[0] == 0  # the last checkpoint is missing
    checkpoint = run_dir / "checkpoints" / "step_000003"
    checkpoint.mkdir(parents=True)
    (checkpoint / "state.json").write_text("whole")
    seal(checkpoint, report_on("the driver", lambda: [checkpoint / "state.json"]).files)
    assert command(*same)[0] == 0  # the last evaluation is missing
    (run_dir / "evaluations.jsonl").write_text('{"step": 3}\n')
    (checkpoint / "state.json").write_text("who")
    assert command(*same)[0] == 0  # the last checkpoint is cut short
    (checkpoint / "state.json").write_text("whole")
    code, out, _ = command(*same)
    assert (code, len(started)) == (0, 5)
    assert out == f"The run in {run_dir} is complete: all 3 steps are taken. A greater steps=N takes more.\n"
    assert command(*same, "steps=5")[0] == 0
    assert (len(started), started[-1].steps, started[-1].resume) == (6, 5, str(run_dir))


def test_auto_keeps_saved_values_that_the_command_does_not_name(command, started, model_folder, composed, tmp_path):
    save(load(composed("seed=7", f"model.path={model_folder}")), tmp_path / "config.yaml")
    assert command("train", f"model.path={model_folder}", "steps=9", f"run_dir={tmp_path}", "resume=auto")[0] == 0
    assert [(run.seed, run.steps, run.run_dir) for run in started] == [(7, 9, str(tmp_path))]


def test_saved_and_new_values_are_checked_together(command, composed, tmp_path):
    saved = load(composed("prompts_per_step=3", "rollout.group_size=5"))
    save(saved, tmp_path / "config.yaml")
    code, _, err = command("train", f"resume={tmp_path}", "learner.ranks=2")
    assert code == 2
    assert "learner.ranks: 15 completions a step (prompts_per_step=3 x rollout.group_size=5) do not divide" in err


def test_evaluate_needs_no_training_prompts_and_refuses_what_cannot_run(command, model_folder):
    heldout = ["prompts=jsonl", "prompts.heldout.path=test.jsonl"]
    code, out, err = command("evaluate", f"model.path={model_folder}", *heldout, "evaluate.k=[9]", "learner.ranks=7")
    assert (code, out) == (2, "")
    assert "This config cannot run:\n  evaluate.k: pass@9 needs 9 completions of a prompt" in err
    code, _, err = command("evaluate", f"model.path={model_folder}", "resume=runs/first")
    assert code == 2 and "resume: an evaluation starts anew" in err


def test_evaluate_help_names_its_keys(command):
    code, out, _ = command("evaluate", "--help")
    assert code == 0 and "+evaluate.sets.NAME" in out


def test_packages_of_programs_are_names_with_versions(command):
    code, out, err = command("packages", "./numpy")
    assert (code, out) == (2, "") and "'./numpy' is no package with versions" in err


def test_packages_without_a_source_are_refused_with_the_remedy(command, monkeypatch, tmp_path):
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path), "PIP_CONFIG_FILE": "/dev/null"}.items():
        monkeypatch.setenv(name, value)
    code, out, err = command("packages", "numpy", "--folder", str(tmp_path / "shared"))
    assert (code, out) == (1, "") and "No matching distribution found for numpy" in err
    assert "set the reward's packages_folder" in err
