"""The whole loop, as a user runs it: Ray, vLLM, two ZeRO-3 ranks and a reward of one's own, on random models.

The runs that are told apart to the last bit are of a mixture of experts with latent attention (DeepSeek-V3), whose
biases are moved; adapters and the run that goes ahead, with experts spread over ranks, are of Qwen3-MoE.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from tests.conftest import tiny_overrides
from tests.tiny.learner import exported

TIMEOUT_S = 420
PROGRAM = [sys.executable, "-m", "rlframe.cli"]
RLFRAME = [*PROGRAM, "train"]


def rlframe(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*RLFRAME, *arguments], capture_output=True, text=True, timeout=TIMEOUT_S)


def lines(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def learned(run_dir: Path) -> list[dict[str, float]]:
    """Every step's metrics but those that are seconds, shares of seconds, speeds or memory, and counts of losses."""
    timed = ("time/", "per_s", "seconds", "stall_s", "idle", "memory/", "losses/", "recoveries/")
    return [
        {key: value for key, value in row.items() if not any(word in key for word in timed)}
        for row in lines(run_dir / "metrics.jsonl")
    ]


def offspring_of_ray(pid_file: str) -> list[psutil.Process]:
    """Processes whose environment carries the mark that a test gave to its run."""
    marked = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("RLFRAME_TEST_RUN") == pid_file:
                marked.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return marked


def left_of_ray(pid_file: str, within_s: float = 30.0) -> list[psutil.Process]:
    """The same processes where some are left after that time: on a busy machine killed processes end late."""
    deadline = time.monotonic() + within_s
    while (marked := offspring_of_ray(pid_file)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return marked


def wait_for(running: subprocess.Popen[str], reached: Callable[[], bool]) -> None:
    """Until a run has come that far; fails with its words where it ends before."""
    deadline = time.monotonic() + TIMEOUT_S
    while not reached():
        assert running.poll() is None and time.monotonic() < deadline, running.communicate(timeout=60)
        time.sleep(0.5)


def run_and_kill_a_rank(command: list[str], run_dir: Path) -> None:
    """Runs a command to its end, and kills one of its ranks once four steps are recorded."""
    running = subprocess.Popen(
        [*command, f"run_dir={run_dir}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "RLFRAME_TEST_RUN": str(run_dir)},
    )
    metrics = run_dir / "metrics.jsonl"
    wait_for(running, lambda: metrics.exists() and len(lines(metrics)) >= 4)
    next(each for each in offspring_of_ray(str(run_dir)) if each.name().startswith("ray::LearnerRan")).kill()
    output, _ = running.communicate(timeout=TIMEOUT_S)
    assert running.returncode == 0, output[-3000:]
    assert "the learner is lost after step " in output.replace("\n", " ")


# A reference that follows at step 4 must come out of the checkpoint of step 3.
SETTINGS = [
    "learner.minibatches=2",
    "kl=reference",
    "kl.refresh_every=4",
    "checkpoint.every=3",
    "evaluate.every=3",
    "evaluate.reward=brevity",
]


@pytest.fixture(scope="module")
def mixture(deepseek_v3_model: Path) -> list[str]:
    # Three epochs of 4 problems, whose outcomes must come out of the checkpoint too.
    curriculum = ["prompts.train.size=4", "prompts.curriculum={solved_weight: 0.5, failed_weight: 0.5}"]
    return [*tiny_overrides(deepseek_v3_model), *SETTINGS, *curriculum, "learner.moe.bias_update_rate=0.01"]


@pytest.fixture(scope="module")
def six_steps(mixture: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("runs") / "six"
    done = rlframe(*mixture, "steps=6", f"run_dir={run_dir}")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return run_dir


def test_six_steps_leave_everything_that_the_readme_names(six_steps: Path) -> None:
    rows = lines(six_steps / "metrics.jsonl")
    assert [(row["step"], row["policy_version"]) for row in rows] == [(n, n) for n in range(1, 7)]
    for key in (
        "reward/mean",
        "reward/math",
        "reward/brevity",
        "rollout/completion_tokens",
        "rollout/tokens_per_s",
        "learner/loss",
        "policy/ref_k3",
        "time/step_s",
        "time/rollout_wait_s",
        "time/learner_s",
        "time/weight_sync_s",
        "time/weight_publish_s",
        "time/weight_wait_s",
        "rollout/stall_s",
        "time/checkpoint_s",
        "learner/skipped",
        "moe/imbalance",
        "moe/unused_experts",
        "moe/router_entropy",
    ):
        assert all(isinstance(row[key], int | float) for row in rows), key
    assert {row["rollout/staleness_max"] for row in rows} == {0}
    assert max(row["mismatch/abs_mean"] for row in rows) < 1e-3  # float32 on both sides
    assert all(row["learner/grad_norm"] > 0 for row in rows if row["reward/groups_without_signal"] < 2)
    assert {row["learner/updates"] for row in rows} == {2}
    assert rows[4]["policy/ref_k3"] <= rows[3]["policy/ref_k3"]  # the policy of version 4 is step 5's reference
    with gzip.open(six_steps / "rollouts" / "step_000006.jsonl.gz", "rt") as stream:
        completions = [json.loads(line) for line in stream]
    assert len(completions) == 2 * 4
    assert {span["version"] for one in completions for span in one["turns"][0]["versions"]} == {5}
    assert [row["step"] for row in lines(six_steps / "evaluations.jsonl")] == [0, 3, 6]
    assert (six_steps / "curves.png").stat().st_size > 10_000
    assert sorted(path.name for path in (six_steps / "checkpoints").iterdir()) == ["step_000003", "step_000006"]


def test_evaluate_repeats_the_figures_of_the_runs_last_evaluation(
    six_steps: Path, mixture: list[str], tmp_path: Path
) -> None:
    checkpoint = six_steps / "checkpoints" / "step_000006" / "huggingface"
    command = [*PROGRAM, "evaluate", *mixture, f"model.path={checkpoint}", f"run_dir={tmp_path / 'again'}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stderr[-3000:]
    last = lines(six_steps / "evaluations.jsonl")[-1]
    assert lines(tmp_path / "again" / "evaluations.jsonl") == [last | {"step": 0}]


@pytest.mark.parametrize("placement", ["colocated"])  # the uninterrupted run is separate
def test_a_resumed_run_equals_an_uninterrupted_one_to_the_last_bit(
    six_steps: Path, placement: str, tmp_path: Path
) -> None:
    run_dir = tmp_path / "again"
    shutil.copytree(six_steps, run_dir)
    shutil.rmtree(run_dir / "checkpoints" / "step_000006")  # as if the machine had died while it was written
    (run_dir / "curves.png").unlink()
    done = rlframe("steps=6", f"resume={run_dir}", f"placement={placement}")
    assert done.returncode == 0, done.stderr[-3000:]
    assert learned(run_dir) == learned(six_steps)
    seconds = [[row["time/step_s"] for row in lines(folder / "metrics.jsonl")] for folder in (run_dir, six_steps)]
    assert [one == other for one, other in zip(*seconds, strict=True)] == [True] * 3 + [False] * 3  # taken anew
    assert lines(run_dir / "evaluations.jsonl") == lines(six_steps / "evaluations.jsonl")
    assert (run_dir / "curves.png").exists()


@pytest.mark.long
def test_a_run_that_loses_a_rank_equals_an_uninterrupted_one(
    six_steps: Path, mixture: list[str], tmp_path: Path
) -> None:
    run_dir = tmp_path / "lost"
    run_and_kill_a_rank([*RLFRAME, *mixture, "steps=6"], run_dir)
    assert learned(run_dir) == learned(six_steps)
    last = lines(run_dir / "metrics.jsonl")[-1]
    assert (last["losses/learner"], last["recoveries/learner"]) == (1, 1)
    assert lines(run_dir / "evaluations.jsonl") == lines(six_steps / "evaluations.jsonl")
    assert [_prompt_ids(run_dir, step) for step in range(1, 7)] == [_prompt_ids(six_steps, n) for n in range(1, 7)]


def test_a_second_run_in_a_directory_that_holds_one_is_refused(six_steps: Path, mixture: list[str]) -> None:
    refused = rlframe(*mixture, f"run_dir={six_steps}")
    assert refused.returncode == 2
    assert f"run_dir: {six_steps} holds a run already" in refused.stderr


def test_an_export_has_single_experts_and_opens_in_transformers(six_steps: Path, deepseek_v3_model: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = six_steps / "checkpoints" / "step_000006" / "huggingface"
    assert AutoModelForCausalLM.from_pretrained(folder).config.num_hidden_layers == 2
    now, began = exported(folder), exported(deepseek_v3_model)
    assert {name: values.shape for name, values in now.items()} == {
        name: values.shape for name, values in began.items()
    }
    assert "model.layers.1.mlp.experts.7.down_proj.weight" in now
    bias = "model.layers.1.mlp.gate.e_score_correction_bias"
    moved = (now[bias] - began[bias]) / 0.01  # 12 updates, each up or down by one
    assert abs(moved - moved.round()).max() < 1e-3 and 0 < abs(moved).max() <= 12.001
    assert (
        AutoTokenizer.from_pretrained(folder)("2 + 3").input_ids[0]
        == AutoTokenizer.from_pretrained(folder)("2").input_ids[0]
    )


def test_at_staleness_1_a_stopped_run_skips_a_cut_checkpoint(qwen3_moe_model: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "ahead"
    mixture = [*tiny_overrides(qwen3_moe_model), *SETTINGS, "learner.expert_parallel=2"]
    running = subprocess.Popen(
        [*RLFRAME, *mixture, "max_staleness=1", "late=wait", "steps=500", "checkpoint.every=2", f"run_dir={run_dir}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "RLFRAME_TEST_RUN": str(tmp_path)},
        process_group=0,
    )
    metrics = run_dir / "metrics.jsonl"
    wait_for(running, lambda: metrics.exists() and len(lines(metrics)) >= 5)
    os.killpg(running.pid, signal.SIGTERM)  # as Slurm and `timeout` do: the whole process group
    output, _ = running.communicate(timeout=120)
    assert running.returncode == 130
    assert f"resume={run_dir}" in output.replace("\n", "")
    assert left_of_ray(str(tmp_path)) == []
    rows = lines(metrics)
    assert {row["rollout/staleness_max"] for row in rows} == {0, 1}
    assert all(1 <= row["moe/imbalance"] <= 4 and row["moe/router_entropy"] > 0 for row in rows)  # 8 experts, 2 a token

    newest, older = sorted((run_dir / "checkpoints").glob("step_*"), reverse=True)
    assert newest.name == f"step_{rows[-1]['step']:06d}"
    shard = next((newest / "learner").glob("*.safetensors"))
    with shard.open("r+b") as stream:
        stream.truncate(shard.stat().st_size // 2)
    assert older.name < newest.name
    last = rows[-1]["step"] + 2
    resumed = rlframe(f"resume={run_dir}", f"steps={last}")
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    told = resumed.stdout.replace("\n", "")
    assert newest.name in told and shard.name in told
    assert [row["step"] for row in lines(metrics)] == list(range(1, last + 1))
    trained_on = [_prompt_ids(run_dir, step) for step in range(1, last + 1)]
    ids = [one for step in trained_on for one in step]
    assert len(ids) == len(set(ids)) == 2 * last  # no prompt was trained on twice


class CutShort(NamedTuple):
    """A run of adapters one of whose ranks was killed after its fourth step's checkpoint."""

    run_dir: Path
    returncode: int
    errors: str
    left: list[psutil.Process]


@pytest.fixture(scope="module")
def cut_short(qwen3_moe_model: Path, tmp_path_factory: pytest.TempPathFactory) -> CutShort:
    run_dir = tmp_path_factory.mktemp("runs") / "adapters"
    lora = "learner.lora={rank: 4, alpha: 8, targets: [q_proj, v_proj, o_proj]}"
    settings = [*tiny_overrides(qwen3_moe_model), *SETTINGS, lora, "learner.lr=0.02", "checkpoint.every=4"]
    settings.append("learner.max_losses=0")
    running = subprocess.Popen(
        [*RLFRAME, *settings, "steps=500", f"run_dir={run_dir}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "RLFRAME_TEST_RUN": str(run_dir)},
    )
    wait_for(running, lambda: (run_dir / "checkpoints" / "step_000004").exists())
    learner = next(p for p in offspring_of_ray(str(run_dir)) if p.name().startswith("ray::LearnerRan"))
    learner.kill()
    _, errors = running.communicate(timeout=120)
    return CutShort(run_dir, running.returncode, errors, left_of_ray(str(run_dir)))


def test_a_dead_actor_ends_the_run_by_name_and_leaves_nothing(cut_short: CutShort) -> None:
    assert cut_short.returncode == 1
    first, second = cut_short.errors.splitlines()[:2]
    assert first.startswith("losses of the learner after step ") and second.startswith("loss 1: learner-")
    assert cut_short.left == []


def test_adapters_alone_are_trained_saved_and_merged_for_engines(cut_short: CutShort) -> None:
    from safetensors.numpy import load_file

    rows = lines(cut_short.run_dir / "metrics.jsonl")
    assert len(rows) >= 4
    assert max(row["mismatch/abs_mean"] for row in rows) < 1e-3  # float32 on both sides, after steps that move far
    saved = cut_short.run_dir / "checkpoints" / "step_000004"
    adapter = load_file(saved / "adapter" / "adapter_model.safetensors")
    assert max(float(abs(values).max()) for name, values in adapter.items() if "lora_B" in name) > 0.01
    assert sum(file.stat().st_size for file in (saved / "learner").iterdir()) < 200_000  # the model has 400 kB


def _prompt_ids(run_dir: Path, step: int) -> set[str]:
    with gzip.open(run_dir / "rollouts" / f"step_{step:06d}.jsonl.gz", "rt") as stream:
        return {json.loads(line)["prompt_id"] for line in stream}
