"""Settings with which no tuning run can start, and tuning settings that no other run takes."""

import pytest
from omegaconf import OmegaConf

from rlframe.config.compose import load, save
from rlframe.config.tune import TuneConfig
from rlframe.errors import ConfigError
from tests.conftest import compose_unchecked


def checked(model_folder, *overrides: str) -> TuneConfig:
    return load(compose_unchecked([f"model.path={model_folder}", *overrides], "tune"), TuneConfig)


def test_rows_and_a_model_are_enough(model_folder, tmp_path):
    run = checked(model_folder, "rows.path=rows.jsonl")
    assert (run.algorithm.name, run.epochs, run.steps) == ("sft", 2.0, None)
    assert run.evaluation_every == 0  # there are no held-out rows
    assert checked(model_folder, "rows.path=a.jsonl", "rows.heldout.path=b.jsonl").evaluation_every == 10
    save(run, tmp_path / "config.yaml")
    assert load(OmegaConf.load(tmp_path / "config.yaml"), TuneConfig) == run


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        ([], "rows: path: names no rows; set rows.path=rows.jsonl, a folder, or a pattern, or rows.parts"),
        (["rows.path=a", "algorithm=grpo"], "algorithm: grpo learns from rollouts and their rewards, and a tuning run"),
        (["rows.path=a", "steps=3"], "steps, epochs: both end the run; set one of them, and the other to null"),
        (["rows.path=a", "epochs=null"], "steps, epochs: neither ends the run; set one of them"),
        (["rows.path=a", "learner.epochs=2"], "learner.epochs: 2, but a tuning step is one update on rows.per_step"),
        (["rows.path=a", "+kl={name: kl}"], "kl.weight: is missing"),
        (
            ["rows.path=a", "rows.max_tokens=5000"],
            "rows.max_tokens: 5000 tokens, but the model at model.path takes 4096",
        ),
        (
            ["rows.path=a", "learner.micro_batch_tokens=1000"],
            "learner.micro_batch_tokens: 1000 cannot hold one row of up to rows.max_tokens=4096 tokens; make it at least",
        ),
        (
            ["rows.path=a", "rows.template.raw=true", "rows.template.chat_template='{{x}}'"],
            "rows.template.raw: true takes",
        ),
        (["rows.path=a", "learner.labels={a: b}"], "learner.labels: {'a': 'b'} is on no node"),
        (["rows.path=a", "learner.sequence_parallel=2"], "learner.sequence_parallel: 1 ranks do not divide"),
        (["rows.path=a", "rows.parts={b: {path: c}}"], "rows: path and parts both name rows"),
        (
            ["rows.path=a", "rows.parts={b: {name: tape}}"],
            "name: 'tape' is none of files, hub, sums, nor an import path",
        ),
    ],
)
def test_an_impossible_setting_is_refused_by_its_key(model_folder, overrides, problem):
    with pytest.raises(ConfigError) as refused:
        checked(model_folder, *overrides)
    assert problem in str(refused.value)


def test_sft_is_refused_in_a_run_of_reinforcement_learning(composed):
    with pytest.raises(ConfigError, match="algorithm: sft learns from written rows and not from rollouts"):
        load(composed("algorithm=sft"))
