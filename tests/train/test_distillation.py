"""On-policy distillation: the policy comes near its teacher, whose engine tells the model's log-probabilities."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlframe.algorithm import DAPO, rate
from rlframe.batch.collate import collate
from rlframe.batch.samples import to_minibatches
from rlframe.batch.sequences import to_train_sample
from rlframe.model.policy import Policy
from rlframe.objective.objective import Objective
from rlframe.training import PACKED_ATTENTION
from rlframe.types import Completion, Prompt, RolloutGroup, ScoredGroup, VersionSpan
from tests.conftest import tiny_overrides
from tests.tiny.groups import make_verdict, recorded, with_token_rewards
from tests.tiny.models import load_model, make_llama

RLFRAME = [sys.executable, "-m", "rlframe.cli", "train"]
TIMEOUT_S = 420
TEACHER = "teacher/main"
TEXTS = [b"2 + 3 =", b"7 - 4 ="]  # random models have nothing in common between contexts, so there are few of them
LENGTH, GROUP, STEPS, LR = 1, 128, 40, 0.02


@pytest.fixture(scope="module")
def teacher_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model like `untied_model`, with other random weights and the same tokenizer."""
    return make_llama(tmp_path_factory.mktemp("teacher"), tie_word_embeddings=False, seed=1)


def logits_of(model: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """[B, L] -> [B, L, V] by the model's own parameters, also once a `Policy` has replaced its head."""
    head = model.lm_head.weight
    return lambda token_ids: model.model(token_ids).last_hidden_state @ head.T


def token_logprobs(
    logits: Callable[[torch.Tensor], torch.Tensor], prompt: list[int], completions: torch.Tensor
) -> torch.Tensor:
    """[G, L] log-probabilities of [G, L] tokens after the prompt, by transformers."""
    token_ids = torch.cat([torch.tensor([prompt] * len(completions)), completions], 1)
    logprobs = logits(token_ids)[:, len(prompt) - 1 : -1].log_softmax(-1)
    return logprobs.gather(-1, completions[..., None])[..., 0]


def sampled(logits: Callable[[torch.Tensor], torch.Tensor], prompt: Prompt) -> tuple[RolloutGroup, torch.Tensor]:
    """A group of completions -> with their tokens [G, L]."""
    tokens = torch.tensor([prompt.token_ids] * GROUP)
    for _ in range(LENGTH):
        tokens = torch.cat([tokens, torch.multinomial(logits(tokens)[:, -1].softmax(-1), 1)], 1)
    tokens = tokens[:, -LENGTH:]
    completions = [
        Completion(
            token_ids=ids.astype(np.int32),
            logprobs=row,
            versions=[VersionSpan(version=0, start=0, end=LENGTH)],
            text="",
            finish_reason="stop",
        )
        for ids, row in zip(tokens.numpy(), token_logprobs(logits, prompt.token_ids, tokens).numpy(), strict=True)
    ]
    return RolloutGroup.single_turn(prompt, completions), tokens


def test_the_policy_comes_within_a_fifth_of_its_distance_from_the_teacher(
    untied_model: Path, teacher_model: Path
) -> None:
    divergences = distil(untied_model, teacher_model, TEXTS)
    assert np.mean(divergences[-5:]) <= 0.2 * divergences[0], divergences[::10]


def distil(student_folder: Path, teacher_folder: Path, texts: list[bytes]) -> list[float]:
    """The mean of log p_student - log p_teacher at each step of the loop's own parts, with rewards of 0."""
    student, teacher = (
        load_model(folder, torch.float32, PACKED_ATTENTION, "padded") for folder in (student_folder, teacher_folder)
    )
    of_student, of_teacher = logits_of(student), logits_of(teacher)
    algorithm = DAPO(name="dapo", clip_low=0.2, clip_high=0.28)
    objective, policy = Objective(algorithm=algorithm), Policy(student, torch.float32, "padded")
    optimizer = torch.optim.Adam(student.parameters(), LR, betas=(0.9, 0.95))
    torch.manual_seed(0)
    divergences = []
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = LR * (1 - step / STEPS)
        groups = {}
        for text in texts:
            prompt = Prompt(id=text.decode(), messages=[], token_ids=list(text), reference="", task="math")
            with torch.no_grad():
                group, tokens = sampled(of_student, prompt)
                teacher_logprobs = token_logprobs(of_teacher, prompt.token_ids, tokens).numpy()
            rows = [row - one.logprobs for row, one in zip(teacher_logprobs, group.completions, strict=True)]
            scored = ScoredGroup(group=group, rewards=[0.0] * GROUP, verdicts={"math": [make_verdict(0.0)] * GROUP})
            groups[prompt.id] = with_token_rewards(scored, rows)
        ratios = [verdict.token_rewards for scored in groups.values() for verdict in scored.verdicts["teacher/big"]]
        divergences.append(-float(np.mean(ratios)))
        (planned,) = to_minibatches(rate([recorded(scored) for scored in groups.values()], algorithm), objective, 1)
        batch = collate([to_train_sample(sample, sample.body) for sample in planned], "padded")
        logprobs, entropies = policy(batch, 1.0)
        optimizer.zero_grad()
        objective.loss(logprobs, entropies, batch).backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
    return divergences


def test_a_run_learns_from_its_teacher_alone(untied_model: Path, teacher_model: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    settings = [
        *(each for each in tiny_overrides(untied_model) if not each.startswith("+reward.terms.brevity")),
        "teachers=one",
        f"teachers.main.path={teacher_model}",
        "reward.terms.math.weight=0",
        "reward.terms.format.weight=0",
        "dynamic_sampling=true",  # would replace every group, since no reward differs
        "learner.ranks=1",
        "learner.lr=1e-2",
        "prompts_per_step=4",
        "rollout.group_size=8",
        "rollout.max_concurrent=32",
        "evaluate.every=4",
        "checkpoint.every=0",
        "steps=12",
    ]
    done = subprocess.run(
        [*RLFRAME, *settings, f"run_dir={run_dir}"], capture_output=True, text=True, timeout=TIMEOUT_S
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert " KL " in done.stdout
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    with gzip.open(run_dir / "rollouts" / "step_000001.jsonl.gz", "rt") as stream:
        lines = [json.loads(line) for line in stream]
    student, teacher = (
        logits_of(load_model(folder, torch.float32, PACKED_ATTENTION, "padded"))
        for folder in (untied_model, teacher_model)
    )
    sums, tokens = 0.0, 0
    with torch.no_grad():
        for line in lines:
            turn, verdict = line["turns"][0], line["verdicts"][TEACHER]
            completion = torch.tensor([turn["token_ids"]])
            of_teacher = token_logprobs(teacher, turn["observed"], completion).sum().item()
            of_student = token_logprobs(student, turn["observed"], completion).sum().item()
            assert verdict["score"] == pytest.approx(of_teacher - turn["logprob_sum"], abs=1e-3 * completion.numel())
            assert verdict["score"] == verdict["token_reward"] == pytest.approx(of_teacher - of_student, abs=2e-2)
            sums, tokens = sums + of_teacher - of_student, tokens + completion.numel()
    assert len(lines) == 32
    assert rows[0][f"{TEACHER}/kl"] == pytest.approx(-sums / tokens, abs=1e-3)
    assert np.mean([row[f"{TEACHER}/kl"] for row in rows[-3:]]) < 0.9 * rows[0][f"{TEACHER}/kl"]
    assert all(row["learner/grad_norm"] > 0 and row["reward/mean"] == 0 for row in rows)
    assert {row[f"{TEACHER}/failed"] for row in rows} == {row["teacher/engines_replaced"] for row in rows} == {0}
    assert all(f"reward/{TEACHER}" not in row and row[f"{TEACHER}/seconds"] > 0 for row in rows)
    assert {row["rollout/groups_replaced"] for row in rows} == {0}
