"""`rlframe tune`: checks the composed config, or that of a run to resume, and starts the tuning run."""

from __future__ import annotations

from typing import Any

from rlframe.cli import command_line
from rlframe.config.tune import TuneConfig

USAGE = """rlframe tune model.path=MODEL rows.path=ROWS [key=value ...]

Trains a model on written rows by the learner of `rlframe train`, without engines. docs/tuning.md says more.

  algorithm=sft                 imitates answers (the default)
  algorithm=dpo, dpo_norm, ipo  prefers the better one of two answers; model.path is the reference
  algorithm=bradley_terry       a reward model of comparisons, for the reward `model`
  algorithm=pointwise           a reward model of labels, of answers or of their steps
  model.path                    a hub id, a folder, or a checkpoint of a run
  rows.path                     a JSONL file, a folder of part_*.jsonl, or 'data/*.parquet'
  rows.heldout.path             rows for the held-out loss, and accuracy or the share of exact answers
  rows.per_step, .max_tokens    rows of an update; most tokens of a row
  rows.turns                    last, or all turns of the assistant
  rows.template.*               the chat template, as prompts.template of `rlframe train`
  epochs, steps                 the length of the run, one of them null: steps=100 epochs=null
  learner.*, checkpoint.*       as in `rlframe train`
  run_dir=FOLDER resume=auto    start, or go on: the same command after any death
  experiment=smollm2_tune       a run of minutes on two CPU cores; smollm2_reward_model is another
  --cfg job                     print the composed config
"""


def main(arguments: list[str]) -> int:
    """Runs every job of the command line; returns the worst exit code."""
    if {"-h", "--help"} & set(arguments):
        print(USAGE, end="")
        return 0
    return command_line.run_jobs("tune", arguments, _start, config_name="tune")


def _start(composed: Any) -> None:
    from rlframe.train.tune import tune

    command_line.start_or_go_on(composed, TuneConfig, tune)
