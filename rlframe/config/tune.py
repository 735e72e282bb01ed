"""`TuneConfig`: the settings of a tuning run, once their combination has passed every check."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, PrivateAttr

from rlframe.config.argument_checks import DEEPSPEED_CHECKS
from rlframe.config.checks import SHARED_CHECKS
from rlframe.config.cluster_checks import ADDRESS_CHECKS, ranks_labels_have_a_running_cluster
from rlframe.config.device_checks import ATTENTION_CHECKS
from rlframe.config.keys import SharedKeys
from rlframe.config.learner_checks import SHARED_LEARNER_CHECKS
from rlframe.model import base_model as model
from rlframe.model.checkpoint_names import is_classifier
from rlframe.rows.config import RowsConfig
from rlframe.schema import Config


class TuneEvaluateConfig(Config):
    """`evaluate` in `conf/tune.yaml`."""

    every: int = Field(ge=0)


class TuneKeys(SharedKeys):
    """The keys of a tuning run."""

    steps: int | None = Field(ge=1)
    epochs: float | None = Field(gt=0)
    rows: RowsConfig
    evaluate: TuneEvaluateConfig

    _epoch_steps: int | None = PrivateAttr(default=None)  # of `epochs`, once the rows are read; never in config.yaml

    @property
    def counts_steps(self) -> bool:
        return self.steps is not None or self._epoch_steps is not None

    @property
    def last_step(self) -> int:
        steps = self.steps or self._epoch_steps
        assert steps is not None, "with_steps comes before the run's first step"
        return steps

    @property
    def chat_template(self) -> str | None:
        return self.rows.template.jinja()

    @property
    def longest_sequence(self) -> int:
        return self.rows.max_tokens

    @property
    def evaluation_every(self) -> int:
        return self.evaluate.every if self.rows.heldout.sources else 0


def algorithm_learns_from_rows(run: TuneKeys) -> str | None:
    if run.algorithm.learns_from == "rollouts":
        return (
            f"algorithm: {run.algorithm.name} learns from rollouts and their rewards, and a tuning run samples none; "
            "use sft, dpo, bradley_terry or pointwise, or `rlframe train`"
        )


def steps_or_epochs_end_the_run(run: TuneKeys) -> str | None:
    if (run.steps is None) == (run.epochs is None):
        given = "both end" if run.steps else "neither ends"
        return f"steps, epochs: {given} the run; set one of them, and the other to null"


def rows_make_one_update(run: TuneKeys) -> str | None:
    for key in ("minibatches", "epochs"):
        if (value := getattr(run.learner, key)) != 1:
            return f"learner.{key}: {value}, but a tuning step is one update on rows.per_step rows; use 1"


def kl_is_in_the_loss(run: TuneKeys) -> str | None:
    if run.kl is not None and run.kl.place == "reward":
        return "kl.place: reward, but rows have no reward to subtract from; use loss"


def rows_fit_model(run: TuneKeys) -> str | None:
    context = model.context_length(run.model.path)
    if context is not None and run.rows.max_tokens > context:
        return f"rows.max_tokens: {run.rows.max_tokens} tokens, but the model at model.path takes {context}; lower it"


def rows_fit_micro_batch(run: TuneKeys) -> str | None:
    room = run.learner.sequence_parallel * run.learner.micro_batch_tokens
    if run.rows.max_tokens > room:
        return (
            f"learner.micro_batch_tokens: {run.learner.micro_batch_tokens} cannot hold one row of up to "
            f"rows.max_tokens={run.rows.max_tokens} tokens; make it at least "
            f"{-(-run.rows.max_tokens // run.learner.sequence_parallel)}"
        )


def raw_rows_have_no_chat_template(run: TuneKeys) -> str | None:
    template = run.rows.template
    if template.raw and (template.chat_template or template.chat_template_kwargs):
        return "rows.template.raw: true takes no chat template; use false, or leave chat_template and its kwargs out"


def loss_is_the_algorithms_alone(run: TuneKeys) -> str | None:
    name = run.algorithm.name
    if run.algorithm.asks and run.kl is not None:
        return f"kl: algorithm={name} has no place for it (dpo's beta holds the policy near model.path); leave it out"
    if run.algorithm.asks and run.learner.entropy_bonus:
        return f"learner.entropy_bonus: algorithm={name} has no place for it; use 0"


def all_turns_are_of_demonstrations(run: TuneKeys) -> str | None:
    if run.rows.turns == "all" and run.algorithm.learns_from != "demonstrations":
        return f"rows.turns: all, but algorithm={run.algorithm.name} judges the last answer of a conversation; use last"


def scores_are_of_plain_conversations(run: TuneKeys) -> str | None:
    template = run.rows.template
    if run.algorithm.asks == "scores" and (key := "raw" if template.raw else template.chat_template_kwargs):
        key = key if isinstance(key, str) else "chat_template_kwargs"
        return (
            f"rows.template.{key}: reward `model` applies the exported chat template without it, so it would score "
            "other tokens than these; write it into a chat template of your own, rows.template.chat_template=FILE"
        )


def scores_come_from_a_classifier(run: TuneKeys) -> str | None:
    """A language model can become one, where transformers has the class."""
    if run.algorithm.asks != "scores":
        return None
    if run.learner.expert_parallel:
        return f"learner.expert_parallel: algorithm={run.algorithm.name} was never run with it; use null"
    settings = model.settings(run.model.path)
    labels = len(settings.get("id2label") or ["LABEL_0", "LABEL_1"])  # 2 is transformers' default
    if is_classifier(settings.get("architectures")) and labels != 1:
        return f"model.path: the classifier there has {labels} labels, and a reward model has one score"
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

    if (kind := settings.get("model_type")) and kind not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES:
        return f"model.path: transformers has no ...ForSequenceClassification of the model type {kind!r}; take another"


class TuneConfig(TuneKeys):
    """A whole tuning run. `config.yaml` in the run directory is this value, dumped."""

    checks: ClassVar = [
        algorithm_learns_from_rows,
        steps_or_epochs_end_the_run,
        rows_make_one_update,
        kl_is_in_the_loss,
        loss_is_the_algorithms_alone,
        all_turns_are_of_demonstrations,
        scores_are_of_plain_conversations,
        scores_come_from_a_classifier,
        *SHARED_CHECKS,
        *ADDRESS_CHECKS,
        ranks_labels_have_a_running_cluster,
        *ATTENTION_CHECKS,
        *SHARED_LEARNER_CHECKS,
        *DEEPSPEED_CHECKS,
        rows_fit_model,
        rows_fit_micro_batch,
        raw_rows_have_no_chat_template,
    ]

    def with_steps(self, steps: int) -> TuneConfig:
        """The same run, whose epochs are this number of steps; a resumed run counts its epochs again."""
        counted = self.model_copy()
        counted._epoch_steps = steps
        return counted
