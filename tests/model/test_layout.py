"""Where packed sequences lie: the batch that the module's docstring draws, and then another sequence."""

import torch

from rlframe.model.layout import Layout

LAYOUT = Layout.of(
    torch.tensor([0, 0, 0, 0, 0, 1, 1, 2, 2, 2, 3, 3, 4, 4]), torch.tensor([0, 1, 2, 3, 4, 3, 4, 1, 2, 3, 2, 3, 0, 1])
)
WHOLE = Layout.of(torch.tensor([0, 0, 0, 1, 1]), torch.tensor([0, 1, 2, 0, 1]))


def test_a_sequence_at_position_p_continues_p_earlier_tokens():
    assert LAYOUT.lengths == [5, 2, 3, 2, 2]
    # "x y" continues "a b c"; "u v w" the first of it, not what "x y" is of; "i j" continues "a u"; then a whole one.
    assert [context.tolist() for context in LAYOUT.contexts] == [[], [0, 1, 2], [0], [0, 7], []]
    assert not LAYOUT.are_whole() and WHOLE.are_whole()


def test_a_token_is_visible_until_a_sequence_starts_at_its_position():
    # "a" by all of the tree, "b c" by the completions of "a b c", "u" by that of "a u", completions by themselves.
    assert LAYOUT.until.tolist() == [12, 7, 7, 5, 5, 7, 7, 12, 10, 10, 12, 12, 14, 14]
    assert WHOLE.until.tolist() == [3, 3, 3, 5, 5]


def test_the_token_before_a_completion_s_first_is_its_prompt_s_last():
    previous = LAYOUT.predecessors().tolist()
    assert previous[1:5] == [0, 1, 2, 3]
    assert previous[5:7] == [2, 5]  # token 2 is the prompt's last, and token 3 follows it as well
    assert previous[7:12] == [0, 7, 8, 7, 10]
    assert previous[13] == 12


def test_boundaries_are_the_starts_and_the_last_end():
    assert WHOLE.boundaries().tolist() == [0, 3, 5]
    assert Layout.of(torch.tensor([7]), torch.tensor([0])).boundaries().tolist() == [0, 1]
