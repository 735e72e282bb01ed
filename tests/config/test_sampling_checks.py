"""Rules on how prompts are sampled and rendered."""

import pytest

from rlframe.config.compose import load
from rlframe.errors import ConfigError


@pytest.mark.parametrize(
    "overrides, teacher",
    [
        (["algorithm=reinforce"], "algorithm=reinforce"),
        (["algorithm=reinforce_pp"], "algorithm=reinforce_pp"),
        (["learner.entropy_bonus=0.01"], "learner.entropy_bonus"),
        (["kl=reference"], "kl"),
        (["algorithm=reinforce", "kl=reference"], "algorithm=reinforce and kl"),
    ],
)
def test_dynamic_sampling_is_refused_where_equal_groups_teach(composed, overrides, teacher):
    load(composed(*overrides))
    with pytest.raises(ConfigError) as refused:
        load(composed("dynamic_sampling=true", *overrides))
    assert f"under {teacher} such groups teach the policy too; use false" in str(refused.value)


@pytest.mark.parametrize("algorithm", ["grpo", "dapo", "dr_grpo", "cispo", "gmpo", "rloo", "reinforce_pp_baseline"])
def test_dynamic_sampling_goes_with_a_baseline_within_the_group(composed, algorithm):
    assert load(composed("dynamic_sampling=true", f"algorithm={algorithm}")).dynamic_sampling


@pytest.mark.parametrize("key, value", [("chat_template", "'{{ messages }}'"), ("chat_template_kwargs", "{a: 1}")])
def test_raw_prompts_take_no_chat_template(composed, key, value):
    with pytest.raises(ConfigError, match=rf"prompts\.template\.raw: true takes no chat template; .* leave out {key}$"):
        load(composed("prompts.template.raw=true", f"prompts.template.{key}={value}"))


def test_arguments_and_curriculum_come_from_the_command_line(composed):
    arguments = "prompts.template.chat_template_kwargs={enable_thinking: false}"
    run = load(composed(arguments, "prompts.curriculum={solved_weight: 0.2, failed_weight: 1.0}"))
    assert run.prompts.template.chat_template_kwargs == {"enable_thinking": False}
    assert run.prompts.curriculum is not None and run.prompts.curriculum.solved_weight == 0.2


def test_an_engine_that_loads_is_not_taken_for_dead(composed):
    assert load(composed("rollout.silence_s=5.0")).rollout.bounds(600.0).first_token_s == 600
    with pytest.raises(
        ConfigError, match=r"rollout\.silence_s: .*2 s are too few: while it loads weights, .* 5 or more"
    ):
        load(composed("rollout.silence_s=2.0"))
