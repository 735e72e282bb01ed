"""Held-out figures as text."""

import io

from rich.console import Console

from rlframe.record.measures import measure, measures, table


def test_a_share_has_its_standard_error_in_points_of_percent():
    figures = {"pass@1": 0.641, "pass@1_se": 0.06, "reward": 0.7, "completion_tokens": 23.46, "truncated": 0.05}
    assert measures(figures) == {
        "pass@1": "64.1%±6.0", "reward": "0.700", "completion_tokens": "23.5", "truncated": "5.0%"
    }  # fmt: skip
    assert measure("aime/reward", -0.25, sign="+") == "-0.250"


def test_a_table_has_a_column_for_each_set_and_a_dash_for_a_missing_figure():
    file = io.StringIO()
    figures = {"eval/pass@1": 0.5, "eval/pass@4": 0.75, "eval/aime/pass@1": 0.125, "eval/aime/pass@1_se": 0.01}
    Console(file=file, width=80).print(table(figures))
    assert [line.split() for line in file.getvalue().splitlines()] == [
        ["held-out", "set", "heldout", "aime"], ["pass@1", "50.0%", "12.5%±1.0"], ["pass@4", "75.0%", "–"]
    ]  # fmt: skip
