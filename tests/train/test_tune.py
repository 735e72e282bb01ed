"""Tuning as a user runs it: ranks, files, checkpoints, recovery; and an engine that samples the tokens of the rows."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rlframe.cluster import start as cluster
from rlframe.config.run import EvaluationRun
from rlframe.prompts.rendering import Renderer
from rlframe.prompts.template import ChatTemplate
from rlframe.rows.tokens import RowEncoder, end_token_ids
from rlframe.rows.types import Demonstration
from rlframe.types import Message, Prompt, Sampling
from tests.conftest import compose_unchecked, tiny_overrides
from tests.tiny import engines
from tests.tiny.templates import QWEN3, QWEN3_APART, R1_DISTILL, SMOLLM2
from tests.train.test_loop import learned, lines, run_and_kill_a_rank

TIMEOUT_S = 420
TUNE = [sys.executable, "-m", "rlframe.cli", "tune"]
THOUGHT = "<think>\nadd\n</think>\n\n"

# Chat template, its variables, and the thoughts of an answer; a question begins with the template's name.
KINDS = {
    "smollm2": (SMOLLM2, {}, ""),
    "qwen3": (QWEN3, {}, THOUGHT),
    "qwen3_off": (QWEN3, {"enable_thinking": False}, ""),
    "r1": (R1_DISTILL, {}, THOUGHT),
    "apart": (QWEN3_APART, {}, THOUGHT),
}


def one_template() -> str:
    """A chat template that takes the form of each kind by the first question's beginning."""
    branches = []
    for name, (template, kwargs, _) in KINDS.items():
        off = "{% set enable_thinking = false %}" if kwargs else ""
        branches.append(f"if messages[0]['content'].startswith('{name}:') %}}{off}{template}{{% ")
    return "{% " + "el".join(branches) + "endif %}"


def conversation(kind: str, number: int) -> tuple[list[Message], str]:
    """A conversation of two turns, and its answer."""
    thought = KINDS[kind][2]
    messages = [
        {"role": "user", "content": f"{kind}: {number}?"},
        {"role": "assistant", "content": f"{thought}{number}"},
        {"role": "user", "content": "and?"},
    ]
    return messages, f"{thought}{number + 1}"


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows")
    cases = [conversation(kind, number) for kind in KINDS for number in range(2)]
    records = [{"messages": [*messages, {"role": "assistant", "content": answer}]} for messages, answer in cases]
    (folder / "rows.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    held_out = [{"messages": conversation(kind, number)[0][:2]} for kind in KINDS for number in range(2, 4)]
    (folder / "heldout.jsonl").write_text("".join(json.dumps(record) + "\n" for record in held_out))
    (folder / "template.jinja").write_text(one_template())
    return folder


def settings(model: Path, rows: Path) -> list[str]:
    shared = [text for text in tiny_overrides(model) if text.startswith(("model.", "learner.", "cluster."))]
    return [
        *shared,
        f"rows.path={rows / 'rows.jsonl'}",
        f"rows.heldout.path={rows / 'heldout.jsonl'}",
        f"rows.template.chat_template={rows / 'template.jinja'}",
        "rows.max_tokens=200",
        "rows.per_step=6",
        "steps=6",
        "epochs=null",
        "checkpoint.every=3",
        "evaluate.every=3",
    ]


def tune(*arguments: str) -> str:
    done = subprocess.run([*TUNE, *arguments], capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def six_steps(tiny_model: Path, rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("runs") / "six"
    tune(*settings(tiny_model, rows), "rows.turns=all", f"run_dir={run_dir}")
    return run_dir


def test_six_steps_leave_metrics_evaluations_checkpoints_and_curves(six_steps: Path) -> None:
    rows = lines(six_steps / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, 7))
    assert {row["rows/count"] for row in rows} == {6}
    assert rows[-1]["learner/loss"] < rows[0]["learner/loss"]
    assert not [key for key in rows[0] if key.startswith(("policy/", "mismatch/", "rollout/", "reward/"))]
    for row in rows:
        assert row["rows/tokens"] - row["learner/shared_tokens"] == row["learner/tokens"] > row["rows/trained_tokens"]
    evaluations = lines(six_steps / "evaluations.jsonl")
    assert [(row["step"], sorted(row)) for row in evaluations] == [
        (step, ["eval/exact", "eval/loss", "step"]) for step in (0, 3, 6)
    ]
    assert evaluations[-1]["eval/loss"] < evaluations[0]["eval/loss"]
    assert (six_steps / "curves.png").stat().st_size > 10_000
    assert json.loads((six_steps / "status.json").read_text())["state"] == "finished"


def test_a_resumed_tuning_run_equals_an_uninterrupted_one(six_steps: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "again"
    shutil.copytree(six_steps, run_dir)
    shutil.rmtree(run_dir / "checkpoints" / "step_000006")
    tune(f"run_dir={run_dir}", "resume=auto")
    assert learned(run_dir) == learned(six_steps)
    assert lines(run_dir / "evaluations.jsonl") == lines(six_steps / "evaluations.jsonl")
    assert "is complete: all 6 steps are taken" in tune(f"run_dir={run_dir}", "resume=auto")


@pytest.mark.long
def test_a_tuning_run_that_loses_a_rank_equals_one_that_does_not(
    six_steps: Path, tiny_model: Path, rows: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "lost"
    run_and_kill_a_rank([*TUNE, *settings(tiny_model, rows), "rows.turns=all", "steps=12"], run_dir)
    assert learned(run_dir)[:6] == learned(six_steps)
    metrics = lines(run_dir / "metrics.jsonl")
    assert [row["step"] for row in metrics] == list(range(1, 13))
    assert metrics[-1]["losses/learner"] == 1


@pytest.fixture(scope="module")
def preferences(tiny_model: Path, rows: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a run of DPO, and what its terminal showed."""
    folder = tmp_path_factory.mktemp("preferences")
    records = []
    for number in range(8):
        answers = {"chosen": f"smollm2 {number}", "rejected": "no " * (number % 3 + 1)}
        records.append({"prompt": f"smollm2: pair {number}?", **answers})
    (folder / "pairs.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records[:6]))
    (folder / "heldout.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records[6:]))
    paths = [f"rows.path={folder / 'pairs.jsonl'}", f"rows.heldout.path={folder / 'heldout.jsonl'}"]
    one_rank = ["algorithm=dpo", "learner.lr=0.001", "learner.ranks=1"]  # two ranks: tests/learner/test_row_losses.py
    shown = tune(*settings(tiny_model, rows), *paths, *one_rank, f"run_dir={folder / 'run'}")
    return folder / "run", shown


def test_a_run_of_dpo_prefers_what_was_chosen(preferences: tuple[Path, str]) -> None:
    whole, shown = preferences
    assert "chosen rejected   margin accuracy" in shown
    metrics, evaluations = lines(whole / "metrics.jsonl"), lines(whole / "evaluations.jsonl")
    assert metrics[0]["learner/loss"] == pytest.approx(0.693147, abs=1e-5)  # log 2: the policy is the reference
    assert metrics[0]["rows/margin"] == pytest.approx(0.0, abs=1e-4)
    assert metrics[-1]["learner/loss"] < 0.5 and metrics[-1]["rows/accuracy"] == 1.0
    figures = ["eval/accuracy", "eval/chosen", "eval/loss", "eval/margin", "eval/rejected", "step"]
    assert [(row["step"], sorted(row)) for row in evaluations] == [(step, figures) for step in (0, 3, 6)]
    assert evaluations[0]["eval/loss"] == pytest.approx(0.693147, abs=1e-5)
    assert len(lines(whole / "reference.jsonl")) == 1 + 6 + 2 + 1  # the header, rows, held-out rows, the end
    assert (whole / "curves.png").stat().st_size > 10_000


@pytest.mark.long
def test_a_resumed_run_of_dpo_equals_an_uninterrupted_one(preferences: tuple[Path, str], tmp_path: Path) -> None:
    whole, run_dir = preferences[0], tmp_path / "again"
    shutil.copytree(whole, run_dir)
    shutil.rmtree(run_dir / "checkpoints" / "step_000006")
    tune(f"run_dir={run_dir}", "resume=auto")
    assert learned(run_dir) == learned(whole)
    assert lines(run_dir / "evaluations.jsonl") == lines(whole / "evaluations.jsonl")
    assert (run_dir / "reference.jsonl").read_text() == (whole / "reference.jsonl").read_text()


@pytest.fixture(scope="module")
def taught(tiny_model: Path, rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of a run that knows the rows by heart, as a folder."""
    run_dir = tmp_path_factory.mktemp("runs") / "taught"
    longer = ["steps=150", "learner.ranks=1", "learner.lr=0.01", "learner.schedule=linear", "rows.per_step=10"]
    rarely = ["checkpoint.every=150", "evaluate.every=150", f"rows.heldout.path={rows / 'rows.jsonl'}"]
    refused = subprocess.run(
        [*TUNE, *settings(tiny_model, rows), *longer, *rarely], capture_output=True, text=True, timeout=TIMEOUT_S
    )
    assert refused.returncode == 2 and "10 of 10 rows have the conversation of a held-out row" in refused.stderr
    tune(*settings(tiny_model, rows), *longer, "checkpoint.every=150", "evaluate.every=0", f"run_dir={run_dir}")
    return run_dir / "checkpoints" / "step_000150" / "huggingface"


def test_an_engine_sees_and_samples_the_tokens_of_the_rows(taught: Path, rows: Path) -> None:
    from transformers import AutoTokenizer

    from rlframe.config.compose import load

    tokenizer = AutoTokenizer.from_pretrained(taught)
    assert tokenizer.chat_template == one_template()
    engine = ["rollout.engines=1", "rollout.max_tokens=60", "prompts.max_tokens=200", "evaluate.samples=1"]
    run = load(compose_unchecked([*tiny_overrides(taught), *engine]), EvaluationRun)
    prompts, expected = [], []
    for kind, (chat_template, kwargs, _) in KINDS.items():
        template = ChatTemplate(chat_template=chat_template, chat_template_kwargs=kwargs or None, raw=False)
        encoder = RowEncoder(tokenizer, template, "last", end_token_ids(taught, tokenizer))
        for number in range(2):
            messages, answer = conversation(kind, number)
            token_ids = Renderer(tokenizer, template).token_ids(
                messages
            )  # as prompts/stream.py gives them to an engine
            row = Demonstration(id="r", messages=messages, answer=answer, task="math", source="r")
            turn = encoder.trajectory(row).turns[0]
            assert turn.observed.tolist() == token_ids
            prompts.append(
                Prompt(id=f"{kind}/{number}", messages=messages, token_ids=token_ids, reference="", task="math")
            )
            expected.append(turn.completion.token_ids.tolist())
    sampling = Sampling(completions=1, max_tokens=60, temperature=0.0, seed=0)
    with cluster.start(run, taught, ("rollout",)) as actors:
        assert actors.rollouts is not None
        handle = actors.rollouts.replicas.serving()[0].handle
        sampled = [one.completion for one in asyncio.run(engines.sample(handle, prompts, sampling))]
    assert [completion.token_ids.tolist() for completion in sampled] == expected
