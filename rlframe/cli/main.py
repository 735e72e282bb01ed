"""`rlframe <verb>`: picks the verb's file, and prints usage and version without loading any other module."""

from __future__ import annotations

import getpass
import os
import sys
from importlib import import_module
from typing import NoReturn

import rlframe
from rlframe.cli import exits

USAGE = f"""rlframe {rlframe.__version__}: reinforcement learning for language models on Ray

  rlframe train experiment=NAME [key=value ...]   run a job; --help lists groups and keys
  rlframe train resume=RUN_DIR [key=value ...]    go on where a run stood
  rlframe train run_dir=RUN_DIR resume=auto ...   start, or go on: the same command after any death
  rlframe train ... --cfg job                     print the composed config
  rlframe train ... -m learner.lr=1e-6,2e-6       one run after the other (Hydra's multirun)
  rlframe tune model.path=MODEL rows.path=ROWS [key=value ...]
                                                  fine-tune a model on written rows; --help says more
  rlframe evaluate model.path=MODEL [key=value ...]
                                                  a model on held-out prompts, without training; --help says more
  rlframe draw model.path=MODEL draw.dir=FOLDER [key=value ...]
                                                  scored completions of prompts onto disk, by parts; --help says more
  rlframe plan experiment=NAME [key=value ...] [--cluster 4x8xH100]
                                                  memory, speed and fit of a run, without GPUs and weights; --help says
                                                  more
  rlframe submit experiment=NAME run_dir=/shared/RUN_DIR ... [--address URL] [--no-wait]
                                                  a job on a Ray cluster: starts or goes on; --help says more
  rlframe jobs                                    submitted runs: step, reward, state
  rlframe stop JOB                                end a submitted run with a checkpoint
  rlframe status RUN_DIR                          what a run does and waits for, also after it died
  rlframe scale RUN_DIR rollout=N                 another number of engines for a run with rollout.engines={{min, max}}
  rlframe select FROM... out=rows.jsonl [select=KIND] [key=value ...]
                                                  rows to learn from out of scored completions; --help says more
  rlframe merge out=FOLDER NAME=MODEL NAME=MODEL ... [weights=[0.5,0.5]]
                                                  the weighted average of models
  rlframe shrink MODEL out=FOLDER keep_layers=[0,1,2]
                                                  a smaller student of some of a model's layers
  rlframe reward list                             the rewards there are, and their settings
  rlframe reward try NAME --rollouts RUN_DIR      a reward, yours (my_rewards.py:Mine) or a built-in one, on saved
                                                  completions: spread, speed, failures, best and worst
  rlframe packages REQUIREMENT ... [--folder F]   packages that programs of the code reward may import, for machines
                                                  without a network
"""

# A file each.
VERBS = (
    *("train", "tune", "evaluate", "plan", "submit", "jobs", "stop", "status", "scale"),
    *("draw", "select", "merge", "shrink", "reward", "packages"),
)


def main() -> None:
    """Entry point of the console script.

    No verb asks a question. A library that does would wait for ever, so stdin is /dev/null, git asks nothing, and
    `getpass`, which reads the terminal itself, raises EOFError.
    """
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ |= {"GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "false", "SSH_ASKPASS": "false"}
    getpass.getpass = _no_password
    sys.excepthook = exits.complain_of_exception
    verb, *arguments = sys.argv[1:] or ["--help"]
    match verb:
        case verb if verb in VERBS:
            sys.exit(import_module(f"rlframe.cli.{verb}").main(arguments))
        case "--version":
            print(rlframe.__version__)
        case "-h" | "--help" | "help":
            print(USAGE, end="")
        case _:
            print(f"rlframe: there is no verb {verb!r}\n\n{USAGE}", file=sys.stderr, end="")
            sys.exit(exits.CONFIG)


def _no_password(prompt: str = "Password: ", *_: object) -> NoReturn:
    raise EOFError(f"a library asks {prompt!r}, and rlframe has no terminal to ask at: set its environment variable")
