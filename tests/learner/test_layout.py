"""Where packed sequences lie: the batch that the module's docstring draws."""

import torch

from rlframe.learner.layout import Layout

LAYOUT = Layout.of(torch.tensor([0, 0, 0, 0, 0, 1, 1, 2, 2, 2]), torch.tensor([0, 1, 2, 3, 4, 3, 4, 0, 1, 2]))


def test_a_sequence_that_begins_at_position_3_continues_3_tokens_of_the_whole_one_before_it():
    assert LAYOUT.lengths == [5, 2, 3]
    assert LAYOUT.roots == [0, 0, 2]
    assert LAYOUT.shared == [0, 3, 0]


def test_the_token_before_a_completion_s_first_is_its_prompt_s_last():
    previous = LAYOUT.predecessors().tolist()
    assert previous[1:5] == [0, 1, 2, 3]
    assert previous[5:7] == [2, 5]  # token 2 is the prompt's last, and token 3 follows it as well
    assert previous[8:] == [7, 8]


def test_boundaries_are_where_each_sequence_begins_and_the_last_one_ends():
    assert LAYOUT.boundaries().tolist() == [0, 5, 7, 10]
    assert Layout.of(torch.tensor([7]), torch.tensor([0])).boundaries().tolist() == [0, 1]
