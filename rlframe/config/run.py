"""`RunConfig`: the settings of a run, once their combination has passed every check."""

from __future__ import annotations

from typing import ClassVar

from rlframe.config.argument_checks import ARGUMENT_CHECKS, ENGINE_ARGUMENT_CHECKS
from rlframe.config.checks import CHECKS, raw_prompts_have_no_chat_template, sequence_fits_model
from rlframe.config.cluster_checks import CLUSTER_CHECKS
from rlframe.config.device_checks import DEVICE_CHECKS
from rlframe.config.evaluation_checks import EVALUATION_CHECKS, fp8_model_has_kernels
from rlframe.config.keys import RunKeys
from rlframe.config.learner_checks import LEARNER_CHECKS
from rlframe.config.placement_checks import PLACEMENT_CHECKS
from rlframe.config.teacher_checks import TEACHER_CHECKS
from rlframe.config.weights_checks import WEIGHTS_CHECKS


class RunConfig(RunKeys):
    """A whole run. `config.yaml` in the run directory is this value, dumped."""

    checks: ClassVar = [
        *CHECKS,
        *CLUSTER_CHECKS,
        *DEVICE_CHECKS,
        *PLACEMENT_CHECKS,
        *WEIGHTS_CHECKS,
        *LEARNER_CHECKS,
        *EVALUATION_CHECKS,
        *ARGUMENT_CHECKS,
        *TEACHER_CHECKS,
    ]


class EvaluationRun(RunConfig):
    """A run that only evaluates: rules that concern training alone do not apply."""

    checks: ClassVar = [
        raw_prompts_have_no_chat_template,
        sequence_fits_model,
        fp8_model_has_kernels,
        *CLUSTER_CHECKS,
        *DEVICE_CHECKS,
        *EVALUATION_CHECKS,
        *ENGINE_ARGUMENT_CHECKS,
    ]
