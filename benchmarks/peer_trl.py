"""Runs TRL's GRPOTrainer on the reference job, in a separate environment, for comparison with rlframe's step rate.

Needs trl 1.16, torch, transformers, accelerate and datasets; imports nothing of rlframe. TRL generates with plain
transformers, as on its users' CPUs. Prints a JSON line for each step, then the median without the first step.

    python peer_trl.py --model HF_FOLDER --prompts prompts.json --steps 5 --dtype bfloat16

prompts.json: [{"messages": [{"role": "user", "content": "What is 2 + 3?"}], "reference": "5"}, ...]
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import tempfile
import time
from pathlib import Path

import torch
from datasets import Dataset
from transformers import AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

PROMPTS, GROUP, MAX_TOKENS = 8, 8, 40
SHAPE = re.compile(r"\s*<think>.*?</think>\s*<answer>(.*?)</answer>\s*", re.DOTALL)


def format_reward(completions: list, **_: object) -> list[float]:
    return [0.2 * bool(SHAPE.fullmatch(text(completion))) for completion in completions]


def right_reward(completions: list, reference: list[str], **_: object) -> list[float]:
    answers = [re.search(r"<answer>(.*?)</answer>", text(completion), re.DOTALL) for completion in completions]
    return [0.8 * bool(answer and answer[1].strip() == right) for answer, right in zip(answers, reference, strict=True)]


def text(completion: list[dict[str, str]]) -> str:
    return completion[-1]["content"]


class StepClock(TrainerCallback):
    """Measures wall time between the ends of optimizer steps, which covers generation, rewards and learner."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_begin(self, *_: object, **__: object) -> None:
        self.last = time.perf_counter()

    def on_step_end(self, *_: object, **__: object) -> None:
        now = time.perf_counter()
        self.seconds.append(now - self.last)
        self.last = now

    def on_log(self, args: object, state: object, control: object, logs: dict, **_: object) -> None:
        if "reward" in logs:
            keys = ("reward", "completions/mean_length", "loss", "grad_norm", "learning_rate")
            line = {"step": len(self.seconds), "seconds": round(self.seconds[-1], 3)}
            print(json.dumps(line | {key: float(logs[key]) for key in keys if key in logs}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="Hugging Face folder")
    parser.add_argument("--prompts", required=True, type=Path, help="JSON: [{messages, reference}, ...]")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--micro-batch", type=int, default=8, help="completions in one forward and backward")
    parser.add_argument("--gradient-checkpointing", action="store_true", help="TRL's default; slower, less memory")
    # bfloat16 weights have no float32 master in TRL; rlframe keeps one.
    dtype_help = "of weights and matrix products; default: TRL's choice, the checkpoint's type under bfloat16 autocast"
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], help=dtype_help)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    prompts = json.loads(arguments.prompts.read_text())
    prompts = (prompts * (arguments.steps * PROMPTS // len(prompts) + 1))[: arguments.steps * PROMPTS]
    dataset = Dataset.from_list([{"prompt": item["messages"], "reference": item["reference"]} for item in prompts])
    clock = StepClock()
    with tempfile.TemporaryDirectory() as folder:
        config = GRPOConfig(
            output_dir=folder,
            max_steps=arguments.steps,
            per_device_train_batch_size=arguments.micro_batch,
            gradient_accumulation_steps=PROMPTS * GROUP // arguments.micro_batch,
            num_generations=GROUP,
            max_completion_length=MAX_TOKENS,
            temperature=1.0,
            learning_rate=2e-5,
            lr_scheduler_type="constant",
            optim="adamw_torch",
            weight_decay=0.0,
            max_grad_norm=1.0,
            epsilon=0.2,
            epsilon_high=0.28,
            beta=0.0,
            loss_type="dapo",
            bf16=arguments.dtype and arguments.dtype == "bfloat16",
            use_cpu=True,
            gradient_checkpointing=arguments.gradient_checkpointing,
            model_init_kwargs=arguments.dtype and {"dtype": arguments.dtype},
            shuffle_dataset=False,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=0,
        )
        trainer = GRPOTrainer(
            model=arguments.model,
            args=config,
            reward_funcs=[format_reward, right_reward],
            train_dataset=dataset,
            processing_class=AutoTokenizer.from_pretrained(arguments.model, padding_side="left"),
            callbacks=[clock],
        )
        trainer.train()
    seconds = clock.seconds[1:] or clock.seconds
    print(json.dumps({"steps": len(seconds), "median_step_s": round(statistics.median(seconds), 3)}), flush=True)


if __name__ == "__main__":
    main()
