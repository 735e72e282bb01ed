"""Output and exit codes of `rlframe plan`. Nothing is started."""

import json
import subprocess
import sys

import pytest

from tests.cli.test_main import command  # noqa: F401 - a fixture
from tests.plan.conftest import DEEPSEEK_V3, QWEN3_8B, TINY

SETTINGS = ("rollout.dtype=bfloat16", "learner.dtype=bfloat16")
GPUS = (*SETTINGS, "learner.gpus=1", "rollout.gpus=1", "learner.micro_batch_tokens=8192", "weights.backend=nccl")


@pytest.fixture
def model(tmp_path):
    """`model(settings)`: an override of model.path for a folder with this config.json alone."""

    def make(settings):
        (tmp_path / "only_config").mkdir()
        (tmp_path / "only_config" / "config.json").write_text(json.dumps(settings))
        return f"model.path={tmp_path / 'only_config'}"

    return make


def test_a_plan_says_where_and_how_much_and_whether_it_fits(command, model):  # noqa: F811
    code, out, err = command("plan", model(TINY), *SETTINGS, "--cluster", "1xcpu")
    assert (code, err) == (0, "")
    for heading in ("model", "machines", "where", "rank", "engine", "host", "step", "seconds", "run"):
        assert f"\n{heading} " in f"\n{out}"
    assert "\nplan: fits (host " in out
    assert "worst instant: " in out and "by stated speeds (plan.*), none measured" in out


def test_a_run_that_does_not_fit_ends_with_1_and_a_remedy(command, model):  # noqa: F811
    code, out, _ = command("plan", model(QWEN3_8B), *GPUS, "learner.gradient_checkpointing=true", "--cluster=2xH100")
    assert code == 1
    assert "plan: cannot fit: a rank keeps 137 GiB, and a H100 has 79.6" in out
    assert "it would fit with learner.offload_optimizer=true" in out


def test_json_has_every_figure_in_bytes(command, model):  # noqa: F811
    code, out, _ = command("plan", model(TINY), *SETTINGS, "--cluster", "1xcpu", "--json")
    figures = json.loads(out)
    assert code == 0 and figures["fits"] and figures["model"]["parameters"] == 1448
    assert figures["rank"]["kept_bytes"]["weights"] == 2896
    assert figures["step"]["tokens"] > 0 and figures["remedy"] is None
    assert figures["machines"][0]["actors"] == ["learner-0", "rollout-0", "reward-0"]


def test_without_machines_a_run_on_gpus_is_planned_for_nodes_of_h100(command, model):  # noqa: F811
    _, out, _ = command("plan", model(QWEN3_8B), *GPUS, "learner.ranks=9", "prompts_per_step=9")
    assert "machines    2 x 8 H100" in out


@pytest.mark.parametrize(
    "arguments, reason",
    [
        (["--cluster", "8"], "--cluster: '8' is no group of nodes; write NODESxGPUSxKIND"),
        (["--cluster", "8xH1000"], "there is no GPU of the kind 'H1000'"),
        (["--cluster"], "argument --cluster: expected one argument; see rlframe plan --help"),
        (["--cluster", "8xH100", "--address", "auto"], "not allowed with argument --cluster"),
        (["--host-gib", "9"], "--host-gib: describes nodes of --cluster, and there is none"),
        (["--cluster", "8xH100", "--shm-gib", "0"], "--shm-gib: 0 is no size; give GiB above 0"),
        (["--clutser", "8xH100"], "--clutser"),
    ],
)
def test_wrong_machines_are_refused(command, model, arguments, reason):  # noqa: F811
    code, out, err = command("plan", model(TINY), *arguments)
    assert (code, out) == (2, "") and reason in err


def test_an_unknown_gpu_of_the_config_is_refused(command, model):  # noqa: F811
    code, out, err = command("plan", model(TINY), *GPUS, "plan.gpu=H1000")
    assert (code, out) == (2, "") and "plan.gpu: there is no GPU of the kind 'H1000'" in err


def test_a_folder_without_config_json_is_refused(command, tmp_path):  # noqa: F811
    (tmp_path / "empty").mkdir()
    code, _, err = command("plan", f"model.path={tmp_path / 'empty'}")
    assert code == 2 and "the folder has no config.json, so it is no Hugging Face model" in err


def test_a_config_json_without_sizes_is_refused_with_its_path(command, model):  # noqa: F811
    code, _, err = command("plan", model({"model_type": "llama", "max_position_embeddings": 4096}))
    assert code == 2 and "only_config" in err and "config.json has no hidden_size, which sizes of a llama need" in err


def test_an_unknown_key_is_refused_as_by_train(command, model):  # noqa: F811
    code, _, err = command("plan", model(TINY), "learner.rank=2")
    assert code == 2 and "learner.rank: there is no such key; did you mean" in err


def test_help_names_the_options(command):  # noqa: F811
    code, out, _ = command("plan", "--help")
    assert code == 0 and "--cluster 4x8xH100" in out and "Exit code 0" in out


def test_a_671b_plan_takes_seconds_and_no_heavy_library():
    arguments = [
        "plan", "experiment=deepseek_v3_r1_zero", f"model.path={DEEPSEEK_V3}", "--cluster", "96x8xB200", "--json",
    ]  # fmt: skip
    script = (
        "import sys, time; start = time.process_time(); sys.argv[1:] = " + repr(arguments) + "\n"
        "from rlframe.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'ray', 'vllm', 'deepspeed', 'transformers'} & {*sys.modules}\n"
        "print(time.process_time() - start, *heavy, file=sys.stderr)"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    seconds, *heavy = answer.stderr.split()
    assert heavy == [] and float(seconds) < 10
    assert json.loads(answer.stdout)["model"]["parameters"] == 671_026_404_352


def test_train_refuses_a_run_that_cannot_fit_before_anything_starts(command, tmp_path):  # noqa: F811
    run_dir = tmp_path / "run"
    code, _, err = command("train", f"model.path={DEEPSEEK_V3}", *SETTINGS, f"run_dir={run_dir}")
    assert code == 2 and not run_dir.exists()
    assert "plan.check: the run cannot fit: ranks and engines keep 12499 GiB of the memory of this machine" in err
    assert "plan.check=warn starts it all the same" in err
