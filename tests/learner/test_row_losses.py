"""Preferences and reward models on real ranks: loss, gradient and scores equal those of transformers on whole rows."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from rlframe.algorithm import DPO, BradleyTerry, DPONorm, Pointwise, RowLoss, rate
from rlframe.batch.samples import in_turn_order, to_minibatches, to_probes
from rlframe.batch.shares import to_shares
from rlframe.learner.config import LearnerConfig
from rlframe.model.classifier import Classifier, padding_of
from rlframe.model.config import LoraConfig
from rlframe.objective.objective import Objective
from rlframe.prompts.template import ChatTemplate
from rlframe.rows.scoring import ScoreEncoder
from rlframe.rows.tokens import RowEncoder
from rlframe.rows.types import Assessment, Comparison, Row
from rlframe.train.row_feed import to_group, to_records
from rlframe.training import GroupRecord
from tests.conftest import compose, tiny_overrides
from tests.learner import test_rank
from tests.learner.conftest import Launch
from tests.tiny import learner
from tests.tiny.models import byte_tokenizer, make_preference_model

TEMPLATE = ChatTemplate(chat_template=None, chat_template_kwargs=None, raw=False)
DPO_ = DPO(name="dpo", beta=0.5, likelihood_weight=0.2)
NORM = DPONorm(name="dpo_norm", beta=5.0, likelihood_weight=0.0)
RANKING = BradleyTerry(name="bradley_terry", margin_scale=1.0, centering=0.01)
LABELS = Pointwise(name="pointwise")


@pytest.fixture(scope="module", autouse=True)
def by_value() -> None:
    """Sends the class of the ranks to their processes, which cannot import it."""
    ray.cloudpickle.register_pickle_by_value(test_rank)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope="module")
def config(tiny_model: Path) -> LearnerConfig:
    return compose(tiny_overrides(tiny_model)).learner.model_copy(update={"max_grad_norm": 1e9})


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_preference_model(tmp_path_factory.mktemp("classifier"))


def comparisons() -> list[Comparison]:
    """Five pairs, two of them on the same question."""
    return [
        Comparison(
            id=f"r{number}",
            messages=[{"role": "user", "content": f"What is 2 + {number // 2}?"}],
            chosen="five, " * number + "done",
            rejected="no" * (4 - number % 3),
            margin=0.3 * number if number else None,
            task="math",
            source="",
        )
        for number in range(5)
    ]


def assessments() -> list[Assessment]:
    ask = [{"role": "user", "content": "What is 2 + 3 + 4?"}]
    steps = [["2 + 3 = 5.", " 5 + 4 = 8."], ["9"], ["5.", " 9.", " So 9."]]
    labels = [[1.0, 0.0], [1.0], [0.5, 0.75, 1.0]]
    return [
        Assessment(id=f"a{n}", messages=ask, steps=texts, labels=of_steps, task="math", source="")
        for n, (texts, of_steps) in enumerate(zip(steps, labels, strict=True))
    ]


def groups(rows: list[Row], algorithm: RowLoss, padding_id: int | None = None) -> list[GroupRecord]:
    tokenizer = byte_tokenizer()
    encoder: Any = RowEncoder(tokenizer, TEMPLATE, "last", {tokenizer.eos_token_id})
    if algorithm.asks == "scores":
        encoder = ScoreEncoder(tokenizer, TEMPLATE, tokenizer.pad_token_id if padding_id is None else padding_id)
    return to_records([to_group(row, encoder, algorithm) for row in rows])


def asked(handles: list[Any], records: list[GroupRecord]) -> list[GroupRecord]:
    """As `LearnerGroup.ask`, in micro-batches of hardly more than the longest row."""
    probes = to_probes(records)
    shares = to_shares([sample for samples in probes.values() for sample in samples], len(handles), 110)
    answers = ray.get([handle.values.remote(share) for handle, share in zip(handles, shares, strict=True)])
    found = {
        id(sample): value
        for share, answer in zip(shares, answers, strict=True)
        for batch, values in zip(share, answer, strict=True)
        for sample, value in zip(batch, values, strict=True)
    }
    return [
        replace(
            record,
            asked=[
                in_turn_order(record.trajectories[g], [found[id(one)] for one in probes[p, g]])
                for g in range(len(record.trajectories))
            ],
        )
        for p, record in enumerate(records)
    ]


def whole(record: GroupRecord, g: int) -> tuple[list[int], list[int]]:
    """Token ids of an answer behind its prompt, and the positions of its completions' tokens."""
    token_ids: list[int] = []
    positions: list[int] = []
    for turn in record.body.group.trajectories[g].turns:
        token_ids += turn.observed.tolist()
        positions += range(len(token_ids), len(token_ids) + len(turn.completion.token_ids))
        token_ids += turn.completion.token_ids.tolist()
    return token_ids, positions


def logprobs(model: Any, record: GroupRecord, g: int) -> Any:
    """[completion tokens] of an answer, by transformers."""
    import torch

    token_ids, positions = whole(record, g)
    table = model(torch.tensor([token_ids])).logits[0].log_softmax(-1)
    return torch.stack([table[position - 1, token_ids[position]] for position in positions])


def scores(model: Any, record: GroupRecord, g: int) -> Any:
    """[scored tokens]: of each the score of the sequence that ends with it, by transformers."""
    import torch

    token_ids, positions = whole(record, g)
    return torch.stack([model(torch.tensor([token_ids[: position + 1]])).logits[0, 0] for position in positions])


def dpo_loss(model: Any, record: GroupRecord, *, beta: float, mean: bool, likelihood: float) -> Any:
    from torch.nn.functional import softplus

    values = [logprobs(model, record, g) for g in range(2)]
    ratios = [value.sum() - reference for value, reference in zip(values, record.reference or [], strict=True)]
    chosen, rejected = (ratio / len(value) if mean else ratio for ratio, value in zip(ratios, values, strict=True))
    return softplus(-beta * (chosen - rejected)) + likelihood * -values[0].mean()


def ranking_loss(model: Any, record: GroupRecord) -> Any:
    chosen, rejected = (scores(model, record, g)[0] for g in range(2))
    margin = record.rewards[0] or 0.0
    return (1 + (rejected - chosen + margin).exp()).log() + 0.01 * (chosen + rejected) ** 2


def label_loss(model: Any, record: GroupRecord) -> Any:
    probabilities = scores(model, record, 0).sigmoid()
    labels = probabilities.new_tensor(record.labels)
    total = sum(len(one.labels) for one in assessments()) / len(assessments())  # a mean over labels
    return -(labels * probabilities.log() + (1 - labels) * (1 - probabilities).log()).sum() / total


Case = tuple[RowLoss, list[Any], Callable[[Any, GroupRecord], Any]]
CASES: dict[str, Case] = {
    "dpo": (DPO_, comparisons(), lambda model, row: dpo_loss(model, row, beta=0.5, mean=False, likelihood=0.2)),
    "norm": (NORM, comparisons(), lambda model, row: dpo_loss(model, row, beta=5.0, mean=True, likelihood=0.0)),
    "ranking": (RANKING, comparisons(), ranking_loss),
    "labels": (LABELS, assessments(), label_loss),
}


@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradient_equal_transformers_whatever_the_split(
    name: str, config: LearnerConfig, tiny_model: Path, classifier: Path, launch: Launch
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    algorithm, rows, formula = CASES[name]
    has_scores = algorithm.asks == "scores"
    folder = classifier if has_scores else tiny_model
    kind = AutoModelForSequenceClassification if has_scores else AutoModelForCausalLM
    model: Any = kind.from_pretrained(folder, dtype=torch.float32)
    records = groups(rows, algorithm)
    if not has_scores:
        sums = [[logprobs(model, row, g).sum().item() for g in range(2)] for row in records]
        records = [
            replace(row, reference=[chosen - 1.0, rejected + 0.5 * p])
            for p, (row, (chosen, rejected)) in enumerate(zip(records, sums, strict=True))
        ]
    loss = torch.stack([formula(model, record) for record in records]).mean()
    loss.backward()
    gradient = {key: tensor.grad.numpy() for key, tensor in model.named_parameters()}
    objective = Objective(algorithm=algorithm)
    for ranks in (1, 2):
        handles = launch(config, folder, ranks, kind=test_rank.GradientRank, scores=has_scores)
        rated = asked(handles, records)
        assert algorithm.means(rated)["loss"] == pytest.approx(loss.item(), abs=1e-5)
        (samples,) = to_minibatches(rate(rated, algorithm), objective, 1)
        for capacity in (110, 1000):
            shares = to_shares(samples, ranks, capacity)
            calls = [handle.gradients.remote(share, objective) for handle, share in zip(handles, shares, strict=True)]
            found = ray.get(calls)[0]
            ray.get([handle.drop_gradients.remote() for handle in handles])
            worst = {key: abs(found[key] - gradient[key]).max() for key in gradient}
            assert max(worst.values()) < 1e-5 * max(1.0, *(abs(value).max() for value in gradient.values())), worst


@pytest.mark.parametrize("pads_with_end", [False, True])
@pytest.mark.parametrize("lora", [False, True])
def test_the_reward_s_worker_scores_as_the_learner_does(
    pads_with_end: bool, lora: bool, config: LearnerConfig, tiny_model: Path, launch: Launch, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_model, base)
    if pads_with_end:
        settings = json.loads((base / "config.json").read_text())
        (base / "config.json").write_text(json.dumps(settings | {"pad_token_id": settings["eos_token_id"]}))
    padding_id = padding_of(base, byte_tokenizer())
    adapters = LoraConfig(rank=4, alpha=8.0, targets=["q_proj", "v_proj"])
    changes = {"lr": 0.01, "warmup_steps": 0} | ({"lora": adapters} if lora else {})
    handles = launch(config.model_copy(update=changes), base, 2, scores=True)
    records = groups(comparisons(), RANKING, padding_id)
    for version in range(4):
        rated = asked(handles, records)
        (samples,) = to_minibatches(rate(rated, RANKING), Objective(algorithm=RANKING), 1)
        learner.step(handles, version, samples, objective=Objective(algorithm=RANKING))
    rated = asked(handles, records)
    learner.save(handles, tmp_path / "state", tmp_path / "model")
    assert not (tmp_path / "adapter").exists()
    worker = Classifier(str(tmp_path / "model"), "float32", "cpu", 512)
    ends = set()
    spread = []
    for row, record in zip(comparisons(), rated, strict=True):
        token_ids = [worker.tokenize(row.messages, answer)[0] for answer in (row.chosen, row.rejected)]
        ends |= {read[-1] == worker.padding_id for read in token_ids}
        ours = np.concatenate(record.asked or [])
        assert worker.forward(token_ids) == pytest.approx(ours.tolist(), abs=1e-5)
        spread += ours.tolist()
    assert ends == {pads_with_end}
    assert max(spread) - min(spread) > 0.1
    learner.load(handles, tmp_path / "state")
    assert all(
        np.array_equal(one, other)
        for a, b in zip(asked(handles, records), rated, strict=True)
        for one, other in zip(a.asked or [], b.asked or [], strict=True)
    )
