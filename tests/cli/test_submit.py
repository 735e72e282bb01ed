"""What `rlframe submit` refuses on this machine, and what it would send. No test here has a cluster."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray

from rlframe.cli import main as cli
from rlframe.cli.command_line import run_jobs
from rlframe.cli.jobs import _age
from rlframe.cli.submit import _prepare, _with_a_cluster
from rlframe.cluster.machine import is_this_machine
from rlframe.config.compose import conf_dir
from rlframe.config.sent_files import sent_files
from rlframe.errors import ConfigError
from tests.tiny.dashboard import dashboard
from tests.tiny.nodes import free_ports

Command = Callable[..., tuple[int, str]]
HERE = {"rayVersion": ray.__version__, "pythonVersion": platform.python_version()}
RUN = ["model.path=/models/there", "run_dir=/shared/runs/first"]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """`command("submit", "steps=3")` -> exit code, and output; in a working directory with one file."""
    folder = tmp_path / "laptop"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["rlframe", *arguments])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        out, err = capfd.readouterr()
        return code, out + err

    return run


def test_a_config_error_loads_no_torch(tmp_path: Path) -> None:
    """Nor vLLM or DeepSpeed, which take seconds; benchmarks/submit.py measures the time."""
    script = (
        "import sys; from rlframe.cli.main import main\n"
        "sys.argv = ['rlframe', 'submit', 'experiment=smollm2_arithmetic', 'run_dir=/shared/x', *sys.argv[1:]]\n"
        "try: main()\n"
        "except SystemExit as end: print(end.code, *sorted({'torch', 'vllm', 'deepspeed'} & {*sys.modules}))"
    )
    [port] = free_ports("127.0.0.1", 1)
    for setting, words in (
        ("prompts_per_step=7", "learner.minibatches: prompts_per_step=7 prompts do not divide into 2 minibatches"),
        (
            f"cluster.address=http://127.0.0.1:{port}",
            f"nothing answers at http://127.0.0.1:{port} within 10 s (Connecti",
        ),
    ):
        answer = subprocess.run(
            [sys.executable, "-c", script, setting, "learner.minibatches=2"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert answer.stdout.splitlines()[-1] == "2"
        assert words in answer.stderr


def test_a_relative_run_dir_is_refused_with_the_reason(command: Command) -> None:
    for setting in ([], ["run_dir=runs/first"], ["run_dir='~/runs/first'"]):
        code, text = command("submit", "model.path=/models/there", *setting)
        assert code == 2
        assert "is relative to the job's own folder on the cluster, which goes with the job" in text


def test_what_only_the_cluster_knows_is_not_asked_here(command: Command) -> None:
    """This model and this package of the cluster are not on this machine."""
    with dashboard(404, None) as (url, requests):
        attention = ["learner.attention=flash_attention_3", "learner.gpus=1", "rollout.gpus=1", "learner.dtype=auto"]
        code, text = command("submit", *RUN, *attention, f"cluster.address={url}")
    assert code == 2 and f"cluster.address: {url} is no dashboard of a Ray cluster (it answers 404)" in text
    assert requests == ["GET /api/v0/cluster_metadata False"]


@pytest.mark.parametrize(
    "versions", [{"rayVersion": "2.9.3"}, {"pythonVersion": "3.9.1"}], ids=["another Ray", "another Python"]
)
def test_another_version_there_is_refused_with_both(command: Command, versions: dict[str, str]) -> None:
    there = HERE | versions
    with dashboard(200, there) as (url, requests):
        code, text = command("submit", *RUN, "--address", url)
    assert code == 2
    assert f"runs Ray {there['rayVersion']} with Python {there['pythonVersion']}, and this machine has Ray" in text
    assert f"Ray {HERE['rayVersion']} with Python {HERE['pythonVersion']}; use the environment" in text
    assert [request for request in requests if not request.startswith("GET /api/v0/")] == []


def test_an_open_cluster_of_another_machine_is_refused(command: Command) -> None:
    """0.0.0.0 reaches this machine, and is no address of it."""
    with dashboard(200, HERE | {"rayVersion": "2.9.3"}, host="0.0.0.0") as (url, requests):
        code, text = command("submit", *RUN, f"cluster.address={url}")
        assert code == 2 and f"cluster.address: {url} asks for no token" in text and "cluster.allow_open=true" in text
        assert {request.split()[0] for request in requests} == {"GET"}
        code, text = command("submit", *RUN, f"cluster.address={url}", "cluster.allow_open=true")
        assert code == 2 and "runs Ray 2.9.3" in text  # the next thing that is asked


def test_an_open_cluster_behind_a_tunnel_is_refused(command: Command) -> None:
    """The near end of the tunnel is at 127.0.0.1, and the nodes are not."""
    for node, words in (("192.0.2.7", "asks for no token"), ("127.0.0.1", "runs Ray 2.9.3")):
        there = HERE | {"rayVersion": "2.9.3", "result": {"result": [{"node_ip": node}]}}
        with dashboard(200, there) as (url, _):
            code, text = command("jobs", "--address", url)
            assert code == 2 and words in text


def test_the_addresses_of_this_machine_are_known() -> None:
    assert [host for host in ("127.0.0.1", "localhost", "127.0.0.9", "::1") if not is_this_machine(host)] == []
    assert not any(is_this_machine(host) for host in ("0.0.0.0", "192.0.2.1", "no-such-host.invalid"))


@pytest.mark.parametrize("address", ["ray://head:10001", "head:6379", "http://", "http://head:port"])
def test_an_address_of_something_else_is_refused(command: Command, address: str) -> None:
    code, text = command("submit", *RUN, "--address", address)
    assert code == 2 and f"cluster.address: {address} is no address of Ray's jobs API" in text


def test_the_value_of_a_secret_is_refused_wherever_it_is(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    value = "wandb-0123456789"
    monkeypatch.setenv("WANDB_API_KEY", value)
    Path("mine.jinja").write_text(f"{{{{ messages }}}} {value}")
    for place, setting in {
        "the override prompts.template.system": f"prompts.template.system={value}",
        "the override +cluster.env_vars.OTHER": f"+cluster.env_vars.OTHER={value}",
        "the file mine.jinja": "prompts.template.chat_template=mine.jinja",
    }.items():
        code, text = command("submit", *RUN, setting)
        assert code == 2
        assert f"secrets: {place} holds the value of WANDB_API_KEY" in text
        assert value not in text


def test_a_secret_among_the_variables_is_refused_by_its_name(command: Command) -> None:
    for setting in (["+cluster.env_vars.MY_API_KEY=x"], ["+cluster.env_vars.OTHER=x", "secrets=[OTHER]"]):
        code, text = command("submit", *RUN, *setting)
        name = setting[0].partition("=")[0].rpartition(".")[2]
        assert code == 2 and f"cluster.env_vars.{name}: everybody who may ask the cluster for its jobs" in text


def test_a_secret_in_the_place_of_its_name_is_not_printed(command: Command) -> None:
    code, text = command("submit", *RUN, "secrets=[sk-live-123456]")
    refusal = text.partition("This config cannot run:")[2]
    assert code == 2 and "secrets.0: is no name of an environment variable" in refusal and "sk-live" not in refusal


def test_files_keep_their_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    laptop = tmp_path / "laptop"
    (laptop / "data").mkdir(parents=True)
    for name in (
        "data/train-0.parquet",
        "data/train-1.parquet",
        "mine.py",
        "../beside.jinja",
        "../other.py",
        "note.txt",
    ):
        (laptop / name).write_text("x")
    monkeypatch.chdir(laptop)
    settings = {
        "prompts": {"train": {"path": "data/train-*.parquet"}, "heldout": {"path": str(laptop / "note.txt")}},
        "template": {"chat_template": "../beside.jinja", "user": "{question}", "system": "note"},
        "reward": {"a": {"name": "mine.py:A"}, "b": {"name": f"{tmp_path}/other.py:B"}},
    }
    sent = sent_files(settings, {"conf": conf_dir()})
    own = {place: file for place, file in sent.files.items() if not place.startswith("conf/")}
    assert list(own) == [
        "data/train-0.parquet", "data/train-1.parquet", "named/0_beside.jinja", "mine.py", "named/1_other.py",
    ]  # fmt: skip
    assert own["named/1_other.py"] == tmp_path / "other.py"
    assert sent.overrides == ["++template.chat_template='named/0_beside.jinja'", "++reward.b.name='named/1_other.py:B'"]
    assert sent.kept == {"prompts.heldout.path": str(laptop / "note.txt")}
    assert "conf/experiment/smollm2_arithmetic.yaml" in sent.files and sent.size() < 1 << 20


def test_parts_in_a_folder_go_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "laptop"
    parts = ["draws/sums/part_000001.jsonl.gz", "ready/rollouts/step_000001.jsonl.gz", "sft/part_000001.jsonl"]
    others = ["draws/sums/draw.json", "part_000001.jsonl", "../far/part_000001.jsonl"]
    for name in parts + others:
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text("{}")
    monkeypatch.chdir(here)
    named = {
        "draw": {"continue_from": "draws/sums", "separator": "."},
        "rows": {"path": "sft/"},
        "more": {"path": "ready"},
    }
    unsent = {"model": {"path": ""}, "heldout": {"path": str(here / "sft")}, "algorithm": {"name": "sft"}}
    sent = sent_files(named | unsent, {})
    assert {*parts} <= {*sent.files} and not {*others[:2]} & {*sent.files} and (sent.overrides, sent.kept) == ([], {})
    with pytest.raises(ConfigError, match=r"^rows\.path: \.\./far is outside the working directory"):
        sent_files({"rows": {"path": "../far"}}, {})


def test_the_relative_folder_of_a_data_set_goes_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent_names = ["data/sums/README.md", "data/sums/train/0.parquet", "other/rows.parquet"]
    for name in [*sent_names, "data/sums/.cache/old.parquet", "plain/rows.parquet", "../far/rows.parquet"]:
        (tmp_path / "laptop" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "laptop" / name).write_text("x")
    monkeypatch.chdir(tmp_path / "laptop")
    parts = {"a": {"name": "hub", "path": "data/sums"}, "b": {"name": "hub", "path": "openai/gsm8k"}}
    settings = {"prompts": {"train": {"parts": parts}}, "rows": {"source": {"name": "hub", "path": "other"}}}
    unsent = {"model": {"path": "plain"}, "more": {"name": "hub", "path": str(tmp_path / "far")}}
    assert sorted(sent_files(settings | unsent, {}).files) == sent_names
    with pytest.raises(ConfigError, match=r"^rows\.path: \.\./far is outside the working directory"):
        sent_files({"rows": {"name": "hub", "path": "../far"}}, {})


def test_too_large_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Path("big.jsonl").open("wb") as file:
        file.truncate(101 << 20)
    with pytest.raises(
        ConfigError, match=r"^prompts\.path: rlframe submit sends at most 100 MiB.*big\.jsonl of 101\.0"
    ):
        sent_files({"prompts": {"path": "big.jsonl"}}, {"conf": conf_dir()})


@pytest.mark.parametrize("folder", ["runs/first", ".git", ".venv/lib"])
def test_nothing_of_runs_environments_and_git_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(folder).mkdir(parents=True)
    Path(folder, "mine.jsonl").write_text("{}")
    with pytest.raises(
        ConfigError, match=r"^prompts\.path: .* is in a folder .*, of which rlframe submit sends nothing"
    ):
        sent_files({"prompts": {"path": f"{folder}/mine.jsonl"}}, {"conf": conf_dir()})


def test_the_age_of_a_state_has_its_two_largest_units() -> None:
    assert [_age(42), _age(3700), _age(200_000)] == ["42 s", "1 h 1 min", "2 d 7 h"]


@pytest.mark.parametrize("verb", ["submit", "jobs", "stop"])
def test_the_verbs_explain_themselves(command: Command, verb: str) -> None:
    code, text = command(verb, "--help")
    assert code == 0 and text.startswith(f"rlframe {verb} ")


def test_a_folder_of_own_yaml_files_goes_along(command: Command) -> None:
    own = Path("mine/experiment")
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text("# @package _global_\nsteps: 3\n")
    prepared: list[Any] = []
    arguments = _with_a_cluster([*RUN, "experiment=mine", "--config-dir=mine"])
    assert run_jobs("submit", arguments, lambda composed: prepared.append(_prepare("train", composed))) == 0
    [job] = prepared
    assert job.run.steps == 3 and "own_conf/experiment/mine.yaml" in job.sent.files
    words = shlex.split(job.submission.entrypoint)
    assert words[:5] == ["exec", "rlframe", "train", "--config-path=$PWD/conf", "--config-dir=$PWD/own_conf"]
    assert words[-3:] == ["resume=auto", "run_dir='/shared/runs/first'", "cluster.address=auto"]


def test_a_tuning_run_goes_with_its_rows(command: Command) -> None:
    Path("rows.jsonl").write_text('{"prompt": "What is 2 + 3?", "completion": "5"}\n')
    prepared: list[Any] = []
    arguments = _with_a_cluster([*RUN, "rows.path=rows.jsonl"])
    assert run_jobs("submit", arguments, lambda composed: prepared.append(_prepare("tune", composed)), "tune") == 0
    [job] = prepared
    assert job.run.rows.path == "rows.jsonl" and "rows.jsonl" in job.sent.files
    assert shlex.split(job.submission.entrypoint)[:4] == ["exec", "rlframe", "tune", "--config-path=$PWD/conf"]
    code, text = command("submit", "tune", *RUN, "rows.path=rows.jsonl", "algorithm=grpo")
    assert code == 2 and "grpo learns from rollouts" in text


def test_a_draw_goes_with_the_folder_of_its_parts(command: Command) -> None:
    prepared: list[Any] = []
    draw = ["model.path=/models/there", "draw.dir=/shared/draws/first"]
    arguments = _with_a_cluster(draw)
    assert run_jobs("submit", arguments, lambda composed: prepared.append(_prepare("draw", composed)), "draw") == 0
    [job] = prepared
    words = shlex.split(job.submission.entrypoint)
    assert words[:3] == ["exec", "rlframe", "draw"] and job.submission.run_dir == "/shared/draws/first"
    assert words[-2:] == ["draw.dir='/shared/draws/first'", "cluster.address=auto"] and "resume=auto" not in words
    code, text = command("submit", "draw", "model.path=/models/there", "draw.dir=draws/first")
    assert code == 2 and "draw.dir: draws/first is relative" in text


def test_a_sweep_of_draws_has_a_folder_for_each(command: Command) -> None:
    """As `rlframe draw -m` has here."""
    draw = ["-m", "model.path=/models/there", "draw.dir=/shared/draws/first", "draw.temperature=0.5,1.0"]
    jobs: list[Any] = []
    arguments = _with_a_cluster(draw)
    assert run_jobs("submit", arguments, lambda composed: jobs.append(_prepare("draw", composed)), "draw") == 0
    folders = ["/shared/draws/first_0", "/shared/draws/first_1"]
    assert [job.run.draw.dir for job in jobs] == [job.run.run_dir for job in jobs] == folders
    assert "draw.dir='/shared/draws/first_1'" in shlex.split(jobs[1].submission.entrypoint)
    here: list[tuple[str, str]] = []
    assert run_jobs("draw", draw, lambda composed: here.append((composed.draw.dir, composed.run_dir)), "draw") == 0
    assert here == [(folder, folder) for folder in folders]
