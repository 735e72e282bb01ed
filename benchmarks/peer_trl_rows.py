"""Loss and gradient of comparisons by TRL's DPOTrainer or RewardTrainer, in TRL's environment; row_losses.py runs it.

    python peer_trl_rows.py --model FOLDER --rows rows.json --gradient OUT.npz --micro-batch 2 --settings '{"beta": 1}'

rows.json: what the trainer's collator takes, token ids included. `--reference FOLDER`: DPO; without it a reward model.
Prints the loss of one step on all rows, and writes its gradient.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer


class Tokenized:
    """Takes rows of token ids as they are, and adds up the losses of a step's micro-batches."""

    step_loss = 0.0

    def _prepare_dataset(self, dataset: Dataset, *_: Any, **__: Any) -> Dataset:
        return dataset

    def training_step(self, *arguments: Any, **named: Any) -> torch.Tensor:
        loss = super().training_step(*arguments, **named)  # pyright: ignore
        self.step_loss += float(loss)
        return loss


class TokenizedDPO(Tokenized, DPOTrainer): ...


class TokenizedReward(Tokenized, RewardTrainer): ...


class KeepGradient(TrainerCallback):
    def __init__(self, path: Path) -> None:
        self.path = path

    def on_pre_optimizer_step(self, *_: object, model: torch.nn.Module, **__: object) -> None:
        np.savez(self.path, **{name: tensor.grad.numpy() for name, tensor in model.named_parameters()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, kind in (("model", str), ("rows", Path), ("gradient", Path), ("micro-batch", int), ("settings", str)):
        parser.add_argument(f"--{name}", type=kind, required=True)
    parser.add_argument("--reference")
    options = parser.parse_args()
    rows = json.loads(options.rows.read_text())
    with tempfile.TemporaryDirectory() as folder:
        shared: dict[str, Any] = {
            "output_dir": folder,
            "per_device_train_batch_size": options.micro_batch,
            "gradient_accumulation_steps": len(rows) // options.micro_batch,
            "max_steps": 1,
            "max_grad_norm": 1e9,
            "max_length": None,
            "gradient_checkpointing": False,
            "bf16": False,
            "use_cpu": True,
            "save_strategy": "no",
            "report_to": [],
            "disable_tqdm": True,
            **json.loads(options.settings),
        }
        kind, name = (AutoModelForCausalLM, DPOConfig), options.reference
        if name is None:
            kind = (AutoModelForSequenceClassification, RewardConfig)
        model = kind[0].from_pretrained(options.model, dtype=torch.float32)
        arguments: dict[str, Any] = {
            "model": model,
            "args": kind[1](**shared),
            "train_dataset": Dataset.from_list(rows),
            "processing_class": AutoTokenizer.from_pretrained(options.model),
            "callbacks": [KeepGradient(options.gradient)],
        }
        if name is None:
            trainer = TokenizedReward(**arguments)
        else:
            reference = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32)
            trainer = TokenizedDPO(**arguments, ref_model=reference)
        trainer.train()
        print(json.dumps({"loss": trainer.step_loss}), flush=True)


if __name__ == "__main__":
    main()
