"""`check_plan`: the plan of a run on its machines, its verdict in a line, and the refusal of a run that cannot fit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlframe.errors import ConfigError
from rlframe.model import base_model
from rlframe.plan.built import built_shapes
from rlframe.plan.counting import model_shapes
from rlframe.plan.machines import Machine, this_machine
from rlframe.plan.plan import Plan, make_plan
from rlframe.plan.remedies import Remedy, find_remedy
from rlframe.plan.report import verdict
from rlframe.plan.shapes import ModelShapes

if TYPE_CHECKING:
    from rlframe.config.run import RunConfig


def shapes_at(path: str) -> ModelShapes:
    """The shapes of the model at `model.path`: a folder with a config.json, a model of the hub, or a GGUF file.

    Raises ConfigError for a config.json that lacks a size or is no causal language model.
    """
    settings, source = base_model.settings(path), base_model.locate(path)
    try:
        return model_shapes(settings) or built_shapes(source, settings)
    except ConfigError as error:
        raise ConfigError(f"model.path: {source}: {error}") from None
    except Exception as error:  # of transformers, which raises many kinds
        first = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ConfigError(
            f"model.path: transformers makes no causal language model of {source} ({first}); give the folder of a "
            "whole model"
        ) from None


def plan_run(run: RunConfig, machines: Sequence[Machine]) -> Plan:
    """Raises ConfigError as `shapes_at` and `make_plan` do."""
    teachers = {name: shapes_at(teacher.path) for name, teacher in run.teachers.items()}
    return make_plan(run, shapes_at(run.model.path), machines, teachers)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedPlan:
    """The verdict on a run that may start."""

    line: str  # the plan's last
    fits: bool  # False: it may not fit, or there is no plan


def check_plan(run: RunConfig, machines: Sequence[Machine] | None = None) -> CheckedPlan:
    """Plans a run on the machines that it will have; `machines`: None: this machine.

    Raises ConfigError with the keys that would help where the kept bytes alone exceed a device or a machine, unless
    `plan.check` is warn. A run whose plan cannot be made may start: the line says why there is none.
    """
    if machines is None:
        machines = this_machine(with_gpus=bool(run.learner.gpus or run.rollout.gpus))
    try:
        plan = plan_run(run, machines)
    except ConfigError as error:
        return CheckedPlan(line=f"plan: none ({error})", fits=False)
    remedy = find_remedy(plan)
    certain = [problem.text for problem in plan.problems if problem.certain]
    if certain and run.plan.check == "refuse":
        raise ConfigError(_refusal(certain, remedy))
    return CheckedPlan(line=verdict(plan, remedy), fits=plan.fits)


def _refusal(certain: Iterable[str], remedy: Remedy | None) -> str:
    helps = f"set {remedy}" if remedy else "no single key of the plan's list, nor two, would make it fit"
    return (
        f"plan.check: the run cannot fit: {'; '.join(certain)}; {helps}. See rlframe plan with the same arguments; "
        "plan.check=warn starts it all the same"
    )
