"""`rlframe draw`: checks the composed config, and draws scored completions onto disk."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from rlframe.cli import command_line
from rlframe.config import compose as config
from rlframe.config import environment
from rlframe.errors import ConfigError

if TYPE_CHECKING:
    from rlframe.config.draw import DrawRun

USAGE = """rlframe draw model.path=MODEL draw.dir=FOLDER [key=value ...]

Samples completions of training prompts, scores them, and writes them into FOLDER by parts, for `rlframe select` and
`rlframe reward try`. The config is that of `rlframe train`; keys of training alone are not needed. After any death the
same command goes on with the missing parts: no prompt is drawn twice. docs/drawing.md says more.

  prompts.train.*               the problems, and the template of prompts.*; problems of prompts.heldout are skipped
  draw.samples, .prompts        completions of a prompt; number of prompts, all by default
  draw.part                     prompts of a part; two parts at most are in memory
  draw.temperature, .top_p, .top_k, .min_p, .max_tokens, .stop, .stop_token_ids
                                sampling
  draw.continue_from, .separator, .labels
                                a draw or run whose completions are continued behind each step, for labels of steps
  draw.reward                   the reward that decides what is right, for the counts
  rollout.engines, .gpus        engines, and GPUs of each
  draw.endpoint.base_url, .model, .key_env
                                an OpenAI-compatible endpoint in place of model.path
  draw.endpoint.max_concurrent, .timeout_s, .attempts, .request
                                its bounds, and further fields of requests
  --cfg job                     print the composed config; conf/draw.yaml explains every key
"""

TRAINING = {  # a key of training's sampling -> that of a draw's
    "rollout.group_size": "draw.samples",
    **{f"rollout.{name}": f"draw.{name}" for name in ("temperature", "top_p", "top_k", "min_p")},
}


def main(arguments: list[str]) -> int:
    """Runs every job of the command line; returns the worst exit code."""
    if {"-h", "--help"} & set(arguments):
        print(USAGE, end="")
        return 0
    return command_line.run_jobs("draw", arguments, _start, config_name="draw")


def _start(composed: Any) -> None:
    from hydra.core.hydra_config import HydraConfig

    from rlframe.train.draw import draw

    if composed.resume is not None:
        raise ConfigError("resume: the same command goes on with a draw by itself; leave it out")
    run = load(composed)
    for line in unused(HydraConfig.get().overrides.task):
        print(f"! {line}", file=sys.stderr)
    environment.provide(run.secrets)
    draw(run)


def unused(overrides: list[str]) -> list[str]:
    """A line for each override that has no effect on a draw, though it has one on training."""
    keys = [override.lstrip("+").partition("=")[0] for override in overrides]
    return [f"{key} is for training; a draw samples by {TRAINING[key]}" for key in keys if key in TRAINING]


def load(composed: Any) -> DrawRun:
    """The checked config of a draw. A held-out source of which nothing is set holds nothing out. Raises ConfigError."""
    from omegaconf import OmegaConf

    from rlframe.config.draw import DrawRun, EndpointRun

    if OmegaConf.missing_keys(composed.prompts.heldout) and _as_shipped(composed.prompts.heldout):
        composed.prompts.heldout = composed.prompts.train
    if composed.draw.endpoint.base_url is None:
        return config.load(composed, DrawRun)
    if OmegaConf.is_missing(composed.model, "path"):
        composed.model.path = ""
    return config.load(composed, EndpointRun)


def _as_shipped(heldout: Any) -> bool:
    """True if no override and no experiment has changed the held-out source of a file of conf/prompts/."""
    from omegaconf import OmegaConf

    shipped = (OmegaConf.load(file) for file in (config.conf_dir() / "prompts").glob("*.yaml"))
    sources = (OmegaConf.to_container(OmegaConf.select(each, "heldout"), resolve=False) for each in shipped)
    return OmegaConf.to_container(heldout, resolve=False) in sources
