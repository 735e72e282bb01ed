"""`TeacherConfig`: a model whose log-probabilities reward the policy's tokens, and the engines that compute them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, StringConstraints

from rlframe.model.config import ModelConfig
from rlframe.schema import LabelSelector, ResourceAmounts

if TYPE_CHECKING:
    from rlframe.rollout.config import RolloutConfig

TeacherName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]+$")]  # part of an actor's name
OWN = {"path", "tasks", "weight", "engines"}  # keys that are not of `rollout`


class TeacherConfig(ModelConfig):
    """`conf/teachers/one.yaml`. An engine's keys that are None are as those of `rollout`."""

    tasks: list[str] | None = Field(default=None, min_length=1)  # None: all tasks
    weight: float = Field(gt=0)
    engines: int = Field(ge=1)
    gpus: int | None = Field(default=None, ge=0)
    cpus: int | None = Field(default=None, ge=0)
    tensor_parallel: int | None = Field(default=None, ge=1)  # None: all GPUs that the stages leave
    pipeline_parallel: int | None = Field(default=None, ge=1)  # None: 1
    dtype: Literal["bfloat16", "float16", "float32"] | None = None
    max_concurrent: int | None = Field(default=None, ge=1)
    gpu_memory_share: float | None = Field(default=None, gt=0, le=1)
    kv_cache_gib: int | None = Field(default=None, ge=1)
    engine_args: dict[str, Any] | None = None  # {}, here and below: none, whatever `rollout` has
    labels: LabelSelector | None = None
    resources: ResourceAmounts | None = None

    def teaches(self, task: str) -> bool:
        return self.tasks is None or task in self.tasks

    def engine(self, rollout: RolloutConfig) -> RolloutConfig:
        """The settings of the teacher's engines: those of the rollout engines, but for the teacher's own keys."""
        given: dict[str, Any] = {key: getattr(self, key) for key in set(type(self).model_fields) - OWN}
        own = {key: value for key, value in given.items() if value is not None}
        # Batches that the policy's engines sample by would be more logits than a teacher has room for.
        shared = {key: value for key, value in rollout.engine_args.items() if key != "max_num_batched_tokens"}
        alone: dict[str, Any] = {"pipeline_parallel": 1, "data_parallel": 1, "expert_parallel": False}
        alone |= {"routed_experts": False, "engine_args": shared}
        fixed = {"tensor_parallel": self.tensor_parallel, "cache": "recompute"}
        return rollout.model_copy(update=alone | own | fixed)


def check_tasks(teachers: Mapping[str, TeacherConfig], tasks: set[str]) -> None:
    """Raises ValueError for a teacher's task that no training problem has. `tasks`: of all training problems."""
    for name, teacher in teachers.items():
        if unknown := sorted(set(teacher.tasks or []) - tasks):
            raise ValueError(
                f"teachers.{name}.tasks: no problem has the task {unknown[0]!r}, so the teacher would judge none of "
                f"these; there are {', '.join(sorted(tasks))}"
            )
