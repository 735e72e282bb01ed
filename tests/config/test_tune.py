"""Settings with which no tuning run can start, and tuning settings that no other run takes."""

import pytest
from omegaconf import OmegaConf

from rlframe.config.compose import load, save
from rlframe.config.tune import TuneConfig
from rlframe.errors import ConfigError
from tests.conftest import compose_unchecked
from tests.tiny.models import make_preference_model


def checked(model_folder, *overrides: str) -> TuneConfig:
    return load(compose_unchecked([f"model.path={model_folder}", *overrides], "tune"), TuneConfig)


def test_rows_and_a_model_are_enough(model_folder, tmp_path):
    run = checked(model_folder, "rows.path=rows.jsonl")
    assert (run.algorithm.name, run.epochs, run.steps) == ("sft", 2.0, None)
    assert run.evaluation_every == 0  # there are no held-out rows
    assert checked(model_folder, "rows.path=a.jsonl", "rows.heldout.path=b.jsonl").evaluation_every == 10
    save(run, tmp_path / "config.yaml")
    assert load(OmegaConf.load(tmp_path / "config.yaml"), TuneConfig) == run


def test_the_saved_config_of_a_run_of_epochs_can_be_resumed(model_folder, tmp_path):
    run = checked(model_folder, "rows.path=rows.jsonl")
    counted = run.with_steps(5)
    assert (counted.counts_steps, counted.last_step) == (True, 5)
    save(counted, tmp_path / "config.yaml")
    assert load(OmegaConf.load(tmp_path / "config.yaml"), TuneConfig) == run
    assert not run.counts_steps


IMPOSSIBLE = {
    "rows.path=null": "rows: path: names no rows; set rows.path=rows.jsonl, a folder, or a pattern, or rows.parts",
    "algorithm=grpo": "algorithm: grpo learns from rollouts and their rewards, and a tuning run samples none",
    "steps=3": "steps, epochs: both end the run; set one of them, and the other to null",
    "epochs=null": "steps, epochs: neither ends the run; set one of them",
    "learner.warmup_steps=1.5": "learner.warmup_steps: 1.5 is neither a whole number of steps, nor below 1 their share",
    "learner.warmup_steps=x": "learner.warmup_steps: Input should be a valid number, not 'x'",
    "learner.epochs=2": "learner.epochs: 2, but a tuning step is one update on rows.per_step",
    "+kl=reference kl.place=reward kl.estimator=k1": "kl.place: reward, but rows have no reward",
    "+kl=reference algorithm=dpo": "kl: algorithm=dpo has no place for it",
    "learner.entropy_bonus=0.1 algorithm=ipo": "learner.entropy_bonus: algorithm=ipo has no place for it; use 0",
    "rows.turns=all algorithm=dpo": "rows.turns: all, but algorithm=dpo judges the last answer of a conversation",
    "rows.template.raw=true algorithm=pointwise": "rows.template.raw: reward `model` applies the",
    "+rows.template.chat_template_kwargs.enable_thinking=false algorithm=bradley_terry": (
        "rows.template.chat_template_kwargs: reward `model` applies the exported chat template without it"
    ),
    "rows.max_tokens=5000": "rows.max_tokens: 5000 tokens, but the model at model.path takes 4096; lower it",
    "learner.micro_batch_tokens=9": "learner.micro_batch_tokens: 9 cannot hold one row of up to rows.max_tokens=4096",
    "rows.template.raw=true rows.template.chat_template='{{x}}'": "rows.template.raw: true takes no chat template",
    "learner.labels={a:b}": "learner.labels: {'a': 'b'} is on no node",
    "learner.sequence_parallel=2": "learner.sequence_parallel: 1 ranks do not divide into groups of 2",
    "+rows.parts.b={path:c}": "rows: path and parts both name rows",
    "+rows.parts.b={name:tape}": "name: 'tape' is none of files, hub, sum_pairs, sums, nor an import path",
}


@pytest.mark.parametrize("overrides", IMPOSSIBLE)
def test_an_impossible_setting_is_refused_by_its_key(model_folder, overrides):
    with pytest.raises(ConfigError) as refused:
        checked(model_folder, "rows.path=a", *overrides.split())
    assert IMPOSSIBLE[overrides] in str(refused.value)


def test_a_classifier_of_two_labels_is_no_reward_model(tmp_path):
    folder = make_preference_model(tmp_path / "two", num_labels=2)
    rows = ["rows.path=a", "rows.max_tokens=64"]
    with pytest.raises(ConfigError, match=r"model\.path: the classifier there has 2 labels, and a reward model"):
        checked(folder, *rows, "algorithm=pointwise")
    checked(make_preference_model(tmp_path / "one"), *rows, "algorithm=bradley_terry")


def test_sft_is_refused_in_a_run_of_reinforcement_learning(composed):
    with pytest.raises(ConfigError, match="algorithm: sft learns from written rows and not from rollouts"):
        load(composed("algorithm=sft"))
