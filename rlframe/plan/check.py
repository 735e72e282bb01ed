"""`check_plan`: the plan of a run on its machines, its verdict in a line, and the refusal of a run that cannot fit."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rlframe.errors import ConfigError
from rlframe.model import base_model
from rlframe.plan.built import built_shapes
from rlframe.plan.families import model_shapes
from rlframe.plan.machines import Machine, this_machine
from rlframe.plan.plan import Plan, make_plan
from rlframe.plan.remedies import Remedy, find_remedy
from rlframe.plan.report import verdict
from rlframe.plan.shapes import ModelShapes

if TYPE_CHECKING:
    from rlframe.config.run import RunConfig


def shapes_at(path: str) -> ModelShapes:
    """The shapes of the model at `model.path`: a folder with a config.json, or a model of the hub.

    Raises ConfigError for a GGUF file that was never dequantised, which has no config.json, and for a config.json that
    lacks a size or is no causal language model.
    """
    folder = base_model.settings_folder(path)
    if folder is None:
        raise ConfigError(
            f"model.path: {path} is a GGUF file that no run has dequantised yet, so there is no config.json to plan "
            "by; give a Hugging Face folder or a model of the hub, or start the run once"
        )
    whole = json.loads((folder / "config.json").read_text())
    settings: dict[str, Any] = whole.get("text_config", whole)
    try:
        return model_shapes(settings) or built_shapes(folder, settings)
    except ConfigError as error:
        raise ConfigError(f"model.path: {folder}: {error}") from None
    except Exception as error:  # of transformers, which raises many kinds
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError(
            f"model.path: transformers makes no causal language model of {folder / 'config.json'} ({first}); give the "
            "folder of a whole model"
        ) from None


def plan_run(run: RunConfig, machines: Sequence[Machine]) -> Plan:
    """Raises ConfigError as `shapes_at` and `make_plan` do."""
    return make_plan(run, shapes_at(run.model.path), machines)


def check_plan(run: RunConfig, machines: Sequence[Machine] | None = None) -> str:
    """Plans a run on the machines that it will have -> the plan's last line.

    `machines`: None: this machine. Raises ConfigError with the key that would help where the kept bytes alone exceed a
    device or a machine, unless `plan.check` is warn. A run whose plan cannot be made goes on: the line says why.
    """
    if machines is None:
        machines = this_machine(with_gpus=bool(run.learner.gpus or run.rollout.gpus))
    try:
        plan = plan_run(run, machines)
    except ConfigError as error:
        return f"plan: none ({error})"
    remedy = find_remedy(plan)
    certain = [problem.text for problem in plan.problems if problem.certain]
    if certain and run.plan.check == "refuse":
        raise ConfigError(_refusal(certain, remedy))
    return verdict(plan, remedy)


def _refusal(certain: Iterable[str], remedy: Remedy | None) -> str:
    helps = f"set {remedy}" if remedy else "no single key of the plan's list, nor two, would make it fit"
    return (
        f"plan.check: the run cannot fit: {'; '.join(certain)}; {helps}. See rlframe plan with the same arguments; "
        "plan.check=warn starts it all the same"
    )
