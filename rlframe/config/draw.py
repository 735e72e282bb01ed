"""`DrawRun`: a run that samples and scores prompts onto disk by engines; `EndpointRun`: by an endpoint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal

from pydantic import Field, JsonValue, field_validator

from rlframe.config.argument_checks import ENGINE_ARGUMENT_CHECKS
from rlframe.config.checks import beyond_context, raw_prompts_have_no_chat_template
from rlframe.config.cluster_checks import CLUSTER_CHECKS
from rlframe.config.device_checks import DEVICE_CHECKS
from rlframe.config.evaluate import SamplingKeys
from rlframe.config.evaluation_checks import fp8_model_has_kernels, greedy_problem
from rlframe.config.run import RunConfig
from rlframe.model.config import ModelConfig
from rlframe.prompts.steps import Separator
from rlframe.schema import Config, SecretName

NOT_SETTINGS = {"dir", "endpoint", "max_given_up", "labels"}  # keys of `draw` that do not decide what is drawn


class EndpointConfig(Config):
    """`draw.endpoint`: an OpenAI-compatible endpoint that samples in place of engines."""

    base_url: str | None = Field(pattern=r"^https?://")
    model: str | None
    key_env: SecretName | None
    request: dict[str, JsonValue]
    timeout_s: float = Field(gt=0)
    attempts: int = Field(ge=1)
    max_concurrent: int = Field(gt=0, le=1000)  # openai's client opens at most 1000 connections
    requests_per_minute: float | None = Field(gt=0)


class DrawConfig(SamplingKeys):
    """`draw` in `conf/draw.yaml`."""

    dir: str
    continue_from: str | None
    separator: Separator
    labels: Literal["hard", "soft"]
    prompts: int | None = Field(ge=1)
    part: int = Field(ge=1)
    max_given_up: float = Field(ge=0, le=1)
    endpoint: EndpointConfig


def draws_fit_model(run: DrawRun) -> str | None:
    tokens = run.max_model_len - run.prompts.max_tokens
    return beyond_context(run, "draw.max_tokens", tokens, f"draw.max_tokens={tokens}")


def draws_differ(run: DrawRun) -> str | None:
    return greedy_problem("draw", run.draw)


def deciding_reward_exists(run: DrawRun) -> str | None:
    if run.draw.reward is not None and run.draw.reward not in run.reward.terms:
        return f"draw.reward: {run.draw.reward!r} is none of the rewards {', '.join(run.reward.terms)}"


def endpoint_is_whole(run: DrawRun) -> str | None:
    if run.draw.endpoint.model is None:
        return "draw.endpoint.model: has no value; set the name by which the endpoint knows its model"


def endpoint_renders_prompts(run: DrawRun) -> str | None:
    template = run.prompts.template
    if keys := [key for key in ("raw", "chat_template", "chat_template_kwargs") if getattr(template, key)]:
        return (
            f"prompts.template.{keys[0]}: an endpoint gets messages and applies its own chat template; leave it out "
            "(vLLM's server takes '+draw.endpoint.request.chat_template_kwargs={...}')"
        )


def endpoint_knows_no_token_ids(run: DrawRun) -> str | None:
    if run.draw.stop_token_ids or (run.draw.stop_token_ids is None and run.rollout.stop_token_ids):
        return "draw.stop_token_ids: an endpoint gets texts; use draw.stop, and draw.stop_token_ids=[]"


def endpoint_rewards_read_texts(run: DrawRun) -> str | None:
    if names := [name for name, term in run.reward.terms.items() if term.reads_tokens]:
        dropped = " ".join(f"~reward.terms.{name}" for name in names)
        return (
            f"reward.terms.{names[0]}: {run.reward.terms[names[0]].name} reads token ids, and an endpoint's "
            f"completions have none, so its score would be wrong; leave it out ({dropped})"
        )


def endpoint_cannot_continue(run: DrawRun) -> str | None:
    if run.draw.continue_from is not None:
        return (
            "draw.continue_from: an endpoint gets messages, and cannot go on behind a token of an answer; let engines "
            "draw, with model.path"
        )


def draw_has_one_folder(run: DrawRun) -> str | None:
    if run.run_dir != run.draw.dir:
        return (
            f"run_dir: {run.run_dir} is another folder than draw.dir={run.draw.dir}, and a draw has one; leave run_dir "
            "out (run_dir='${draw.dir}' in an experiment that sets it)"
        )


DRAW_CHECKS: list[Callable[[Any], str | None]] = [draws_differ, deciding_reward_exists, draw_has_one_folder]


class DrawRun(RunConfig):
    """A run that only draws: rules that concern training alone do not apply."""

    checks: ClassVar = [
        raw_prompts_have_no_chat_template,
        draws_fit_model,
        fp8_model_has_kernels,
        *CLUSTER_CHECKS,
        *DEVICE_CHECKS,
        *DRAW_CHECKS,
        *ENGINE_ARGUMENT_CHECKS,
    ]

    draw: DrawConfig

    @property
    def deciding_reward(self) -> str:
        return self.draw.reward or next(iter(self.reward.terms))

    @property
    def max_model_len(self) -> int:
        """Tokens of the longest prompt with the longest completion."""
        return self.prompts.max_tokens + (self.draw.max_tokens or self.rollout.max_tokens)

    def deciding_settings(self) -> dict[str, Any]:
        """The settings that decide which completions a draw has, by their keys. The URL of an endpoint is none."""
        written = self.written()
        draw, rollout = written["draw"], written["rollout"]
        left_out = NOT_SETTINGS | ({"separator"} if draw["continue_from"] is None else set())
        return {
            "seed": written["seed"],
            "model": written["model"],
            "prompts": written["prompts"],
            "evaluate": {"sets": {name: each["source"] for name, each in written["evaluate"]["sets"].items()}},
            "reward": {"terms": written["reward"]["terms"]},
            "rollout": {key: rollout[key] for key in ("max_tokens", "stop", "stop_token_ids", "dtype", "engine_args")},
            "draw": {key: value for key, value in draw.items() if key not in left_out}
            | {"endpoint": {key: draw["endpoint"][key] for key in ("model", "request")}},
        }


class ServedModel(ModelConfig):
    """The model of an endpoint has no files here."""

    @field_validator("path")
    @classmethod
    def _exists(cls, path: str) -> str:
        if path:
            raise ValueError(
                f"{path!r} and draw.endpoint are two models; leave model.path out (model.path= in an experiment that "
                "sets it), or draw.endpoint.base_url"
            )
        return path


class EndpointRun(DrawRun):
    """A draw whose completions come from an endpoint: no rule of engines applies."""

    checks: ClassVar = [
        *CLUSTER_CHECKS,
        *DRAW_CHECKS,
        endpoint_is_whole,
        endpoint_renders_prompts,
        endpoint_knows_no_token_ids,
        endpoint_rewards_read_texts,
        endpoint_cannot_continue,
    ]

    model: ServedModel  # pyright: ignore[reportIncompatibleVariableOverride]
