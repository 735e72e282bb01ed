"""Rules on how prompts are sampled: dynamic sampling beside terms that make groups of equal rewards teach."""

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
