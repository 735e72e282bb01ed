"""Tunes a model by TRL's SFTTrainer on tokenized rows, in TRL's environment; tune_rows.py runs this file.

    python peer_trl_tune.py --model FOLDER --rows rows.json --per-step 16 --micro-batch 4 --steps 5 --lr 1e-5

rows.json: [{"input_ids": [...], "completion_mask": [...]}, ...], taken in order. Prints a JSON line for each step.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch.utils.data import SequentialSampler
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer


class InOrder(SFTTrainer):
    """Takes rows in their order, and adds up the losses of a step's micro-batches."""

    step_loss = 0.0

    def _get_train_sampler(self, *_: Any) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)

    def training_step(self, *arguments: Any, **named: Any) -> torch.Tensor:
        loss = super().training_step(*arguments, **named)
        self.step_loss += float(loss)
        return loss


class Measure(TrainerCallback):
    """Prints loss and seconds of each step, and keeps the first gradient."""

    def __init__(self, gradient: Path | None) -> None:
        self.gradient = gradient
        self.trainer: InOrder

    def on_step_begin(self, *_: object, **__: object) -> None:
        self.began, self.trainer.step_loss = time.perf_counter(), 0.0

    def on_pre_optimizer_step(self, *_: object, model: torch.nn.Module, **__: object) -> None:
        if self.gradient is not None:
            gradients = {name: tensor.grad.numpy() for name, tensor in model.named_parameters()}
            np.savez(self.gradient, **gradients)
            self.gradient = None

    def on_step_end(self, *_: object, **__: object) -> None:
        line = {"loss": self.trainer.step_loss, "seconds": time.perf_counter() - self.began}
        print(json.dumps(line), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, kind in (("model", str), ("rows", Path), ("per-step", int), ("micro-batch", int), ("steps", int)):
        parser.add_argument(f"--{name}", type=kind, required=True)
    parser.add_argument("--lr", type=float, required=True)
    parser.add_argument("--gradient", type=Path)
    options = parser.parse_args()
    measure = Measure(options.gradient)
    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(
            output_dir=folder,
            per_device_train_batch_size=options.micro_batch,
            gradient_accumulation_steps=options.per_step // options.micro_batch,
            max_steps=options.steps,
            learning_rate=options.lr,
            lr_scheduler_type="constant",
            adam_beta2=0.95,
            weight_decay=0.0,
            max_grad_norm=1e9,
            max_length=None,
            completion_only_loss=True,
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=True,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            model_init_kwargs={"dtype": "float32"},
        )
        rows = Dataset.from_list(json.loads(options.rows.read_text()))
        measure.trainer = InOrder(model=options.model, args=config, train_dataset=rows, callbacks=[measure])
        measure.trainer.train()


if __name__ == "__main__":
    main()
