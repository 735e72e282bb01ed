"""Compares `rlframe tune`'s learner with TRL's SFTTrainer on the same rows: loss, gradient, rows per second.

    python benchmarks/tune_rows.py [--steps 6]

Both take the same 16 rows a step in the same order, in float32 on this machine's cores, one after the other in this
run; TRL in micro-batches of 4 padded rows. A random model of two layers: the gradient of the first step, value by value
(fails above 1e-5). SmolLM2-135M: the loss of every step, and the median of rows per second without the first step.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))  # run as a file: its neighbours are no package

from peers import TRL

from rlframe.batch.samples import to_samples
from rlframe.batch.shares import to_shares

HERE = Path(__file__).parent
PER_STEP, MICRO_BATCH, LR, TOLERANCE = 16, 4, 1e-5, 1e-5
TIGHT = 300  # tokens of rlframe's micro-batches for the gradient: several of them share prompts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=6)
    steps = parser.parse_args().steps
    os.environ.update(DS_ACCELERATOR="cpu", HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1")
    run, smollm2, records = rows(steps)
    with tempfile.TemporaryDirectory() as folder:
        file, gradients = Path(folder) / "rows.json", Path(folder) / "gradient.npz"
        file.write_text(json.dumps([as_trl(record) for record in records]))
        small = small_model(smollm2, Path(folder) / "small")
        ours, first_loss = gradient(run, small, records[:PER_STEP])
        (theirs, *_) = trl(small, file, 1, gradients)
        their_gradient = np.load(gradients)
        worst = max(float(np.abs(ours[name] - their_gradient[name]).max()) for name in their_gradient.files)
        report("gradient", largest_difference=worst, loss_difference=abs(first_loss - theirs["loss"]))
        lines = {"rlframe": rlframe(run, smollm2, records), "trl": trl(smollm2, file, steps)}
    for step, (one, other) in enumerate(zip(lines["rlframe"], lines["trl"], strict=True), start=1):
        report("loss", step=step, rlframe=one["loss"], trl=other["loss"])
    speeds = {name: PER_STEP / median(line["seconds"] for line in found[1:]) for name, found in lines.items()}
    report("rows per second", **speeds, ratio=speeds["rlframe"] / speeds["trl"])
    sys.exit(f"the gradients differ by {worst:.1e}" if worst > TOLERANCE else 0)


def rows(steps: int) -> tuple[Any, Path, list[Any]]:
    """The settings of a tuning run, its model, and the records of all its rows in order."""
    import hydra

    from rlframe.config.compose import conf_dir, load
    from rlframe.config.tune import TuneConfig
    from rlframe.model import base_model
    from rlframe.train.prompts import open_tokenizer
    from rlframe.train.written import open_rows

    changes = [f"rows.per_step={PER_STEP}", f"learner.lr={LR}", "learner.schedule=constant", "learner.warmup_steps=0"]
    changes += ["learner.dtype=float32", "learner.head_dtype=float32", "learner.max_grad_norm=1e9", "evaluate.every=0"]
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        run = load(hydra.compose("tune", ["experiment=smollm2_tune", f"steps={steps}", *changes]), TuneConfig)
    model = base_model.prepare(run.model.path)
    with tempfile.TemporaryDirectory() as folder:
        feed = open_rows(run, open_tokenizer(model), model, Path(folder) / "rows.json", print).feed
    return run, model, [record for _ in range(steps) for record in feed.take()]


def as_trl(record: Any) -> dict[str, list[int]]:
    """A row of one turn as TRL takes it: all token ids, and 1 for those of the completion."""
    turn = record.body.group.trajectories[0].turns[0]
    prompt, completion = turn.observed.tolist(), turn.completion.token_ids.tolist()
    return {"input_ids": prompt + completion, "completion_mask": [0] * len(prompt) + [1] * len(completion)}


def small_model(base: Path, folder: Path) -> Path:
    """A random Llama of two layers with the base's tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    config = AutoConfig.from_pretrained(base)
    sizes = {"num_hidden_layers": 2, "hidden_size": 96, "intermediate_size": 128, "num_attention_heads": 3}
    for name, value in (sizes | {"num_key_value_heads": 1, "head_dim": 32, "initializer_range": 0.2}).items():
        setattr(config, name, value)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


def learner(run: Any, model: Path) -> tuple[Any, Any]:
    """A rank in this process, and the run's objective."""
    from rlframe.actors.sockets import free_address
    from rlframe.cluster.learner_group import objective
    from rlframe.learner.rank import LearnerRank

    rank = LearnerRank("learner-0", run.learner, model, 1.0, run.last_step, "shared")
    rank.connect(free_address("127.0.0.1"), 0, 60.0)
    return rank, objective(run)


def gradient(run: Any, model: Path, records: list[Any]) -> tuple[dict[str, np.ndarray], float]:
    """The gradient of one step by parameter, and the step's loss."""
    from deepspeed.utils import safe_get_full_grad

    from rlframe.algorithm import rate
    from rlframe.batch.collate import collate
    from rlframe.learner.bodies import to_micro_batches
    from rlframe.model.policy import PREFIX

    rank, objective = learner(run, model)
    (share,) = to_shares(to_samples(rate(records, run.algorithm), run.algorithm), 1, TIGHT)
    (samples,) = to_micro_batches([share], "shared")
    sums, _ = rank.updater.accumulate(samples, [collate(batch) for batch in samples], objective, first=True)
    named = rank.engine.module.named_parameters()
    gradients: dict[str, Any] = {name.removeprefix(PREFIX): safe_get_full_grad(tensor) for name, tensor in named}
    return {name: tensor.numpy() for name, tensor in gradients.items()}, sums["loss"]


def rlframe(run: Any, model: Path, records: list[Any]) -> list[dict[str, float]]:
    """Loss and seconds of each step."""
    from rlframe.algorithm import rate

    rank, objective = learner(run, model)
    lines = []
    for version, first in enumerate(range(0, len(records), PER_STEP)):
        samples = to_samples(rate(records[first : first + PER_STEP], run.algorithm), run.algorithm)
        (share,) = to_shares(samples, 1, run.learner.micro_batch_tokens)
        sums = rank.step([share], objective, version)
        lines.append({"loss": sums["loss"], "seconds": sums["seconds"]})
    return lines


def trl(model: Path, file: Path, steps: int, gradients: Path | None = None) -> list[dict[str, float]]:
    """The same by TRL, which writes the first gradient into `gradients`."""
    command = [str(HERE / "peer_trl_tune.py"), "--model", str(model), "--rows", str(file)]
    command += ["--per-step", str(PER_STEP), "--micro-batch", str(MICRO_BATCH), "--steps", str(steps), "--lr", str(LR)]
    command += ["--gradient", str(gradients)] if gradients else []
    return [json.loads(line) for line in TRL.output(*command).splitlines() if line.startswith('{"loss":')]


def report(kind: str, **figures: float) -> None:
    print(json.dumps({"kind": kind} | figures), flush=True)


if __name__ == "__main__":
    main()
