"""What `conf/` must say, checked once, before anything starts. The only importer of OmegaConf.

YAML holds every value; here are types, bounds and combinations, and no second set of defaults.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from rlframe.algorithm import AnyAlgorithm
from rlframe.errors import ConfigError
from rlframe.model import base_model as model
from rlframe.model import precision
from rlframe.objective.correction import AnyCorrection
from rlframe.objective.kl import KL
from rlframe.prompts import AnySource
from rlframe.prompts.template import Template
from rlframe.reward import AnyReward, Reward
from rlframe.schema import Config
from rlframe.types import PACKED_ATTENTION

SPREADS_EXPERTS = ("qwen3_moe",)  # model_type of a config.json


class ModelConfig(Config):
    path: str

    @field_validator("path")
    @classmethod
    def _exists(cls, path: str) -> str:
        model.locate(path)
        return path


class PromptsConfig(Config):
    train: AnySource
    heldout: AnySource
    template: Template
    max_tokens: int = Field(gt=0)


def _fastest(values: Any, *keys: str) -> Any:
    """`values` with a type of numbers for each of `keys` that says `auto`: the fastest of where it will run."""
    if not isinstance(values, dict):
        return values
    return values | {key: precision.fastest(values.get("gpus", 0)) for key in keys if values.get(key) == "auto"}


class RolloutConfig(Config):
    engine: Literal["vllm"]
    engines: int = Field(ge=1)
    group_size: int = Field(ge=2)
    max_tokens: int = Field(ge=1)
    temperature: float = Field(gt=0)
    dtype: Literal["bfloat16", "float16", "float32"]
    max_concurrent: int = Field(ge=1)
    kv_cache_gib: int = Field(ge=1)
    gpu_memory_share: float = Field(gt=0, le=1)
    compile: bool
    cpus: int = Field(ge=0)
    gpus: int = Field(ge=0)
    routed_experts: bool

    @model_validator(mode="before")
    @classmethod
    def _auto(cls, values: Any) -> Any:
        return _fastest(values, "dtype")


class RewardConfig(Config):
    workers: int = Field(ge=1)
    cpus: float = Field(ge=0)
    timeout_s: float = Field(gt=0)
    attempts: int = Field(ge=1)
    max_failed_share: float = Field(ge=0, le=1)
    terms: dict[str, AnyReward] = Field(min_length=1)

    @field_validator("terms")
    @classmethod
    def _refer_to_each_other(cls, terms: dict[str, Reward]) -> dict[str, Reward]:
        for name, term in terms.items():
            for other in term.refers_to():
                if other == name or other not in terms:
                    others = ", ".join(sorted(set(terms) - {name})) or "none"
                    raise ValueError(f"{name} refers to the reward {other!r}; there are besides it: {others}")
                if terms[other].looks_at_group():
                    raise ValueError(f"{name} refers to {other!r}, which looks at groups; only others can decide")
        return terms


class LoraConfig(Config):
    rank: int = Field(ge=1)
    alpha: float = Field(gt=0)
    targets: list[str] = Field(min_length=1)

    @field_validator("targets")
    @classmethod
    def _has_no_head(cls, targets: list[str]) -> list[str]:
        if "lm_head" in targets:
            raise ValueError("lm_head cannot have an adapter; leave it out")
        return targets


class MoEConfig(Config):
    bias_update_rate: float = Field(ge=0)


class LearnerConfig(Config):
    ranks: int = Field(ge=1)
    sequence_parallel: int = Field(ge=1)
    optimizer: Literal["adamw", "muon"]
    lr: float = Field(gt=0)
    schedule: Literal["constant", "linear", "cosine"]
    warmup_steps: int = Field(ge=0)
    betas: list[Annotated[float, Field(ge=0, lt=1)]] = Field(min_length=2, max_length=2)
    weight_decay: float = Field(ge=0)
    max_grad_norm: float = Field(gt=0)
    max_skipped: int = Field(ge=1)
    lora: LoraConfig | None
    minibatches: int = Field(ge=1)
    epochs: int = Field(ge=1)
    entropy_bonus: float = Field(ge=0)
    micro_batch_tokens: int = Field(ge=1)
    dtype: Literal["bfloat16", "float32"]
    head_dtype: Literal["bfloat16", "float32"]
    attention: str
    gradient_checkpointing: bool
    offload_optimizer: bool
    offload_parameters: bool
    expert_parallel: int | None = Field(ge=2)
    moe: MoEConfig
    cpus: int = Field(ge=0)
    gpus: int = Field(ge=0, le=1)

    @model_validator(mode="before")
    @classmethod
    def _auto(cls, values: Any) -> Any:
        return _fastest(values, "dtype", "head_dtype")

    @property
    def shares_prompts(self) -> bool:
        """Whether completions of one prompt are packed behind one copy of it: our attention takes that."""
        return self.attention == PACKED_ATTENTION


class MismatchConfig(Config):
    action: Literal["warn", "correct", "stop"]
    max_k3: float = Field(gt=0)
    max_abs_mean: float = Field(gt=0)


class WeightsConfig(Config):
    backend: Literal["object_store", "nccl", "ipc"]
    chunk_mib: int = Field(ge=1)
    full_every: int = Field(ge=1)


class CheckpointConfig(Config):
    every: int = Field(ge=0)
    keep: int = Field(ge=1)
    export: bool


class EvaluateConfig(Config):
    every: int = Field(ge=0)
    reward: str | None
    samples: int = Field(ge=1)
    temperature: float = Field(gt=0)


class TrackingConfig(Config):
    wandb: bool
    project: str
    mode: Literal["online", "offline"]


class ClusterConfig(Config):
    address: str | None
    object_store_gib: float = Field(gt=0)
    start_timeout_s: float = Field(gt=0)
    stall_timeout_s: float = Field(gt=0)


class RunConfig(Config):
    """A whole run. `config.yaml` in the run directory is this value, dumped."""

    steps: int = Field(ge=1)
    prompts_per_step: int = Field(ge=1)
    max_staleness: int = Field(ge=0)
    dynamic_sampling: bool
    seed: int = Field(ge=0)
    run_dir: str
    resume: str | None
    model: ModelConfig
    prompts: PromptsConfig
    rollout: RolloutConfig
    reward: RewardConfig
    algorithm: AnyAlgorithm
    kl: KL | None = None
    correction: AnyCorrection = None
    learner: LearnerConfig
    mismatch: MismatchConfig
    weights: WeightsConfig
    checkpoint: CheckpointConfig
    evaluate: EvaluateConfig
    tracking: TrackingConfig
    cluster: ClusterConfig

    @property
    def deciding_reward(self) -> str:
        """The name of the reward that says what is right: of `evaluate.reward`, else the first."""
        return self.evaluate.reward or next(iter(self.reward.terms))

    @model_validator(mode="after")
    def _possible(self) -> RunConfig:
        completions = self.prompts_per_step * self.rollout.group_size
        longest = self.prompts.max_tokens + self.rollout.max_tokens
        context = model.context_length(self.model.path)
        problems = []
        if completions % self.learner.ranks:
            problems.append(
                f"learner.ranks: {completions} completions a step (prompts_per_step={self.prompts_per_step} x "
                f"rollout.group_size={self.rollout.group_size}) do not divide over {self.learner.ranks} ranks; "
                "choose a divisor"
            )
        if self.prompts_per_step % self.learner.minibatches:
            problems.append(
                f"learner.minibatches: prompts_per_step={self.prompts_per_step} prompts do not divide into "
                f"{self.learner.minibatches} minibatches; choose a divisor"
            )
        if self.mismatch.action == "correct" and self.correction is None:
            problems.append("mismatch.action: correct switches on `correction`, but that is none; choose one, as tis")
        if self.evaluate.reward is not None and self.evaluate.reward not in self.reward.terms:
            problems.append(
                f"evaluate.reward: {self.evaluate.reward!r} is none of the rewards {', '.join(self.reward.terms)}"
            )
        if longest > context:
            problems.append(
                f"rollout.max_tokens: prompts.max_tokens={self.prompts.max_tokens} + rollout.max_tokens="
                f"{self.rollout.max_tokens} = {longest} tokens, but the model at model.path takes {context}; "
                f"at most {context - self.prompts.max_tokens} would fit"
            )
        if longest > self.learner.sequence_parallel * self.learner.micro_batch_tokens:
            problems.append(
                f"learner.micro_batch_tokens: {self.learner.micro_batch_tokens} cannot hold one sequence of up to "
                f"{longest} tokens (prompts.max_tokens + rollout.max_tokens); make it at least "
                f"{-(-longest // self.learner.sequence_parallel)}"
            )
        if self.weights.backend != "object_store" and not (self.rollout.gpus and self.learner.gpus):
            problems.append(
                f"weights.backend: {self.weights.backend} moves weights between GPUs, but rollout.gpus="
                f"{self.rollout.gpus} and learner.gpus={self.learner.gpus}; use object_store"
            )
        others = [key for key in ("lora", "offload_optimizer", "offload_parameters") if getattr(self.learner, key)]
        if self.learner.optimizer == "muon" and others:
            problems.append(
                f"learner.optimizer: muon is for whole matrices on the device, not for learner.{others[0]}; use adamw"
            )
        problems += self._sequence_parallel_problems() + self._mixture_problems() + self._expert_parallel_problems()
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _sequence_parallel_problems(self) -> list[str]:
        size, ranks = self.learner.sequence_parallel, self.learner.ranks
        if size == 1:
            return []
        problems = []
        if ranks % size:
            problems.append(f"learner.sequence_parallel: {ranks} ranks do not divide into groups of {size}")
        if self.learner.attention != PACKED_ATTENTION:
            problems.append(f"learner.sequence_parallel: {size} works with learner.attention={PACKED_ATTENTION} only")
        if self.rollout.routed_experts:
            problems.append(f"learner.sequence_parallel: {size} replays no rollout.routed_experts; use false, or 1")
        return problems

    def _mixture_problems(self) -> list[str]:
        learner, problems = self.learner, []
        if learner.moe.bias_update_rate and not model.has_tensor(self.model.path, model.BIAS):
            problems.append(
                f"learner.moe.bias_update_rate: {learner.moe.bias_update_rate} moves a bias that chooses experts "
                f"({model.BIAS}), and the model at model.path has none; use 0"
            )
        if self.rollout.routed_experts and not self.rollout.gpus:
            problems.append("rollout.routed_experts: vLLM tells them on GPUs only, and rollout.gpus=0; use false")
        targets = {target.rpartition(".")[2] for target in learner.lora.targets} if learner.lora else set()
        if targets and (refused := targets & model.expert_parts(self.model.path)):
            problems.append(
                f"learner.lora.targets: {', '.join(sorted(refused))} name experts or their router, which are one "
                "tensor a layer that no adapter is merged into; name matrices of the attention"
            )
        return problems

    def _expert_parallel_problems(self) -> list[str]:
        learner, size = self.learner, self.learner.expert_parallel
        if size is None:
            return []
        key, problems = "learner.expert_parallel", []
        kind = model.kind(self.model.path)
        if kind not in SPREADS_EXPERTS:
            return [
                f"{key}: is for {', '.join(SPREADS_EXPERTS)}, whose blocks DeepSpeed's own are known to equal, and the "
                f"model at model.path is {kind}; use null"
            ]
        if learner.ranks % size:
            problems.append(f"{key}: {size} does not divide learner.ranks={learner.ranks}; choose a divisor")
        if (experts := model.experts(self.model.path)) % size:
            problems.append(f"{key}: {size} does not divide the model's {experts} experts; choose a divisor")
        if learner.lora:
            problems.append(f"{key}: learner.lora freezes the experts that it would share out; use null")
        if learner.optimizer == "muon":
            problems.append(f"{key}: muon wants whole gradients of the same parameters on all ranks; use adamw")
        if learner.sequence_parallel > 1:
            problems.append(f"{key}: DeepSpeed does not do it beside learner.sequence_parallel; use null, or 1 there")
        if self.rollout.routed_experts:
            problems.append(f"{key}: DeepSpeed's routers cannot be told routes; use rollout.routed_experts=false")
        return problems


def load(composed: Any) -> RunConfig:
    """Hydra's composed config -> the checked one.

    Raises ConfigError with one line for each key that is unknown, missing, of a wrong type or out of range,
    and for each combination that cannot work.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        missing = sorted(OmegaConf.missing_keys(composed))
        values = OmegaConf.to_container(composed, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key}: {str(error).splitlines()[0]}") from error
    if missing:
        raise ConfigError(
            "\n".join(f"{key}: has no value; set {key}=..., or pick an experiment=..." for key in missing)
        )
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(describe(error)) from error


def save(run: RunConfig, path: Path) -> None:
    """Writes the config as YAML, every value resolved."""
    from omegaconf import OmegaConf

    OmegaConf.save(OmegaConf.create(run.model_dump()), path)


def merge_saved(path: Path, composed: Any, overrides: list[str]) -> Any:
    """The config of a run that is resumed: what it was started with, and on top what the command line names.

    `overrides` are Hydra's (`steps=40`, `algorithm=dapo`); a group's choice replaces the whole group, and
    `experiment` is passed over, for the saved config already holds what it chose.
    """
    from omegaconf import OmegaConf

    saved = OmegaConf.load(path)
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        if key == "experiment":
            continue
        OmegaConf.update(saved, key, OmegaConf.select(composed, key), merge=False)
    return saved


def reward_settings(name: str, settings: list[str], saved: Path) -> dict[str, Any]:
    """What `reward.build` takes: `name`, the settings of a term of that name in the config at `saved` if there is one,
    and over them `settings` (`key=value`, the value in YAML)."""
    from omegaconf import OmegaConf

    terms: Any = OmegaConf.to_container(OmegaConf.load(saved).reward.terms) if saved.is_file() else {}
    of_run = next((term for term in terms.values() if term["name"] == name), {"weight": 1.0})
    given: Any = OmegaConf.to_container(OmegaConf.from_dotlist(settings))
    return {**of_run, "name": name, **given}


def describe(error: ValidationError) -> str:
    """One line a problem: the key's path, what is wrong, what would be right."""
    lines = []
    for problem in error.errors(include_url=False):
        path = ".".join(str(part) for part in problem["loc"])
        match problem["type"]:
            case "extra_forbidden":
                text = f"{path}: there is no such key"
            case "missing":
                text = f"{path}: is missing"
            case "value_error":
                message = str(problem.get("ctx", {}).get("error"))
                text = f"{path}: {message}" if path else message
            case _:
                text = f"{path}: {problem['msg']}, not {problem['input']!r}"
        lines.append(text)
    return "\n".join(lines)
