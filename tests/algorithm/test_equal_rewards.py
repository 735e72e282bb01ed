"""Every built-in algorithm says truly whether it compares completions: only then equal rewards teach nothing."""

from dataclasses import replace

import numpy as np
import pytest

from rlframe.algorithm import BUILTIN, rate
from rlframe.config.compose import load
from rlframe.training import GroupRecord
from rlframe.types import RewardTerm
from tests.tiny.groups import make_record


def with_terms(rewards: list[float]) -> GroupRecord:
    return replace(make_record(list(rewards), [3, 3]), terms={"math": RewardTerm(weight=1.0, scores=list(rewards))})


@pytest.mark.parametrize("name", sorted(name for name, kind in BUILTIN.items() if kind.learns_from == "rollouts"))
def test_advantages_of_equal_rewards_are_0_if_completions_are_compared(composed, name):
    algorithm = load(composed(f"algorithm={name}", "correction=proximal")).algorithm
    equal, _ = rate([with_terms([1.0, 1.0]), with_terms([0.0, 1.0])], algorithm)
    teaches = any(np.any(advantage) for advantage in equal.advantages if advantage is not None)
    assert teaches == (not algorithm.compares_completions)
