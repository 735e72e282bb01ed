"""`rlframe evaluate`: checks the composed config and evaluates a model on every held-out set."""

from __future__ import annotations

from typing import Any

from rlframe.cli import command_line
from rlframe.config import compose as config
from rlframe.config import environment
from rlframe.errors import ConfigError

USAGE = """rlframe evaluate model.path=MODEL [key=value ...]

Evaluates a model on held-out prompts with engines and reward workers, without a learner: a hub id, a folder, or a
checkpoint of a run (model.path=runs/first/checkpoints/step_000100/huggingface). The config is that of `rlframe train`;
keys of training alone are not needed. Prints a column for each held-out set, and writes into run_dir: config.yaml,
evaluations.jsonl, and evaluations/<set>/ with every completion and its verdicts (for `rlframe reward try`).

  prompts.heldout.*             the held-out problems, and the template of prompts.*
  evaluate.samples, .k          completions of a prompt; every k of pass@k
  evaluate.temperature, .top_p, .top_k, .min_p, .max_tokens, .stop, .stop_token_ids
                                sampling; temperature=0.0 with samples=1 is greedy
  evaluate.reward               the reward that decides what is right
  '+evaluate.sets.NAME={...}'   a further set, which names what differs:
                                {source: {path: aime.jsonl}, samples: 64, k: [1, 64], max_tokens: 8192}
  rollout.engines, .gpus        engines, and GPUs of each
  run_dir=FOLDER                a new folder; -m evaluates one model after the other:
                                -m model.path=Qwen/Qwen3-0.6B,Qwen/Qwen3-1.7B
  --cfg job                     print the composed config
"""


def main(arguments: list[str]) -> int:
    """Runs every job of the command line; returns the worst exit code."""
    if {"-h", "--help"} & set(arguments):
        print(USAGE, end="")
        return 0
    return command_line.run_jobs("evaluate", arguments, _start)


def _start(composed: Any) -> None:
    from rlframe.config.run import EvaluationRun
    from rlframe.train.evaluation_run import evaluate

    if composed.resume is not None:
        raise ConfigError("resume: an evaluation starts anew; name a checkpoint's folder huggingface by model.path")
    composed.prompts.train = composed.prompts.heldout  # no training prompt is read, so its keys need no value
    run = config.load(composed, EvaluationRun)
    command_line.refuse_used_folder(run, "choose another folder")
    environment.provide(run.secrets)
    evaluate(run)
