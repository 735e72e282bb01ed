"""Fine-tuning on real ranks: loss, gradient and held-out figures equal those of transformers on whole rows."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from rlframe.algorithm import SFT, rate
from rlframe.batch.samples import to_minibatches, to_probes
from rlframe.batch.shares import to_shares
from rlframe.learner.config import LearnerConfig
from rlframe.objective.objective import Objective
from rlframe.prompts.template import ChatTemplate
from rlframe.rows.tokens import RowEncoder, tokenizer_digest
from rlframe.rows.types import Demonstration
from rlframe.train.row_feed import to_group, to_records
from rlframe.training import GroupRecord
from tests.conftest import compose, tiny_overrides
from tests.learner import test_rank
from tests.learner.conftest import Launch
from tests.tiny.models import byte_tokenizer
from tests.tiny.templates import QWEN3, SMOLLM2

OBJECTIVE = Objective(algorithm=SFT(name="sft"))


@pytest.fixture(scope="module", autouse=True)
def by_value() -> None:
    """Sends the class of the ranks to their processes, which cannot import it."""
    ray.cloudpickle.register_pickle_by_value(test_rank)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope="module")
def config(tiny_model: Path) -> LearnerConfig:
    return compose(tiny_overrides(tiny_model)).learner


ANSWERS = [("5", "9"), ("five", "nine"), ("<think>2+3</think>5", "<think>5+4</think>9")]


def rows(template: str, sampled: list[int] | None = None) -> list[GroupRecord]:
    """Conversations of two turns, all of whose answers are trained on; two of them begin with the same question.

    `sampled`: tokens in place of the last conversation's last answer.
    """
    chat_template = ChatTemplate(chat_template=template, chat_template_kwargs=None, raw=False)
    encoder = RowEncoder(byte_tokenizer(), chat_template, "all", {byte_tokenizer().eos_token_id})
    found = []
    for number, (first, second) in enumerate(ANSWERS):
        ask = {"role": "user", "content": f"What is 2 + {3 + number // 2}?"}
        messages = [ask, {"role": "assistant", "content": first}, {"role": "user", "content": "And 4 more?"}]
        row = Demonstration(id=f"row {number}", messages=messages, answer=second, task="math", source="")
        if sampled and number == len(ANSWERS) - 1:
            row = replace(row, token_ids=sampled, tokenizer=tokenizer_digest(byte_tokenizer()))
        found.append(to_group(row, encoder, OBJECTIVE.algorithm))
    return to_records(found)


def whole_rows(records: list[GroupRecord]) -> list[tuple[list[int], list[int]]]:
    """Token ids and labels of every training sequence, as a trainer without packing has them; -100: no label."""
    sequences = []
    for record in records:
        turns = record.body.group.trajectories[0].turns
        for shared, trained in record.body.group.trajectories[0].paths():
            token_ids: list[int] = []
            labels: list[int] = []
            for index in shared + trained:
                observed, completion = turns[index].observed.tolist(), turns[index].completion.token_ids.tolist()
                token_ids += observed + completion
                labels += [-100] * len(observed) + (completion if index in trained else [-100] * len(completion))
            sequences.append((token_ids, labels))
    return sequences


def by_transformers(model: Path, records: list[GroupRecord]) -> tuple[float, dict[str, np.ndarray], list[bool]]:
    """The mean loss over all labels, its gradient, and for each sequence whether all labels are the likeliest."""
    import torch
    from transformers import AutoModelForCausalLM

    policy: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    losses, greedy = [], []
    for token_ids, labels in whole_rows(records):
        logits = policy(torch.tensor([token_ids])).logits[0, :-1]
        targets = torch.tensor(labels[1:])
        losses.append(torch.nn.functional.cross_entropy(logits, targets, reduction="none")[targets != -100])
        greedy.append(bool((logits.argmax(1) == targets)[targets != -100].all()))
    loss = torch.cat(losses).mean()
    loss.backward()
    return loss.item(), {name: tensor.grad.numpy() for name, tensor in policy.named_parameters()}, greedy


@pytest.mark.parametrize("template", [SMOLLM2, QWEN3], ids=["kept", "stripped"])
def test_loss_and_gradient_equal_transformers_whatever_the_split(
    template: str, config: LearnerConfig, tiny_model: Path, launch: Launch
) -> None:
    records = rows(template)
    loss, gradient, _ = by_transformers(tiny_model, records)
    (samples,) = to_minibatches(rate(records, OBJECTIVE.algorithm), OBJECTIVE, 1)
    for ranks in (1, 2):
        handles = launch(config, tiny_model, ranks, kind=test_rank.GradientRank)
        for capacity in (110, 1000):  # hardly more than the longest row in a micro-batch, or all rows
            shares = to_shares(samples, ranks, capacity)
            calls = [handle.gradients.remote(share, OBJECTIVE) for handle, share in zip(handles, shares, strict=True)]
            found = ray.get(calls)[0]
            ray.get([handle.drop_gradients.remote() for handle in handles])
            assert max(abs(found[name] - gradient[name]).max() for name in gradient) < 1e-5
        shares = to_shares(samples, ranks, 110)
        calls = [handle.step.remote([share], OBJECTIVE, 0) for handle, share in zip(handles, shares, strict=True)]
        assert sum(sums["loss"] for sums in ray.get(calls)) == pytest.approx(loss, abs=1e-5)


def test_likelihoods_equal_transformers(config: LearnerConfig, tiny_model: Path, launch: Launch) -> None:
    prompt = rows(QWEN3)[-1].body.group.trajectories[0].turns[-1].observed.tolist()
    records = rows(QWEN3, sampled=greedy_tokens(tiny_model, prompt, 6))
    loss, _, greedy = by_transformers(tiny_model, records)
    assert greedy == [False, False, False, True]
    probes = [probe for probes in to_probes(records).values() for probe in probes]
    (handle,) = launch(config, tiny_model, 1)
    (share,) = to_shares(probes, 1, 1000)
    (found,) = ray.get(handle.likelihoods.remote(share))
    tokens = sum(likelihood.tokens for likelihood in found)
    assert tokens == sum(label != -100 for _, labels in whole_rows(records) for label in labels)
    assert -sum(likelihood.logprob_sum for likelihood in found) / tokens == pytest.approx(loss, abs=1e-5)
    assert sorted(likelihood.greedy for likelihood in found) == [False, False, False, True]


def greedy_tokens(model: Path, prompt: list[int], count: int) -> list[int]:
    import torch
    from transformers import AutoModelForCausalLM

    policy: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    token_ids = list(prompt)
    for _ in range(count):
        token_ids.append(int(policy(torch.tensor([token_ids])).logits[0, -1].argmax()))
    return token_ids[len(prompt) :]
