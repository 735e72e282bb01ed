"""Figures of held-out sets as text for a person: in a line, and in a table."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from rlframe.record.evaluations import by_set

FORMS = {"truncated": ".1%", "exact": ".1%", "accuracy": ".1%", "reward": ".3f", "loss": ".4f", "margin": ".3f"}
FORMS |= {"chosen": ".2f", "rejected": ".2f", "score": ".3f"}
STANDARD_ERROR = "_se"  # ends the key of a figure's standard error


def measure(name: str, value: float, sign: str = "") -> str:
    """Formats a share (pass@k, truncated, exact) in percent, a reward or a loss with decimals, a length with one.

    `name` is a figure, perhaps behind the name of a set: aime/pass@1.
    """
    figure = name.rpartition("/")[2]
    form = ".1%" if "@" in figure else FORMS.get(figure, ".1f")
    return format(value, sign + form)


def measures(figures: dict[str, float]) -> dict[str, str]:
    """Figure -> text, with the standard error where there is any.

    >>> measures({"pass@1": 0.641, "pass@1_se": 0.06, "reward": 0.7})
    {'pass@1': '64.1%±6.0', 'reward': '0.700'}
    """
    texts = {}
    for name, value in figures.items():
        if not name.endswith(STANDARD_ERROR):
            error = figures.get(name + STANDARD_ERROR)
            texts[name] = measure(name, value) + ("" if error is None else f"±{100 * error:.1f}")
    return texts


def table(figures: dict[str, float]) -> Table:
    """A column for each held-out set. Sets may have different figures."""
    sets = {name: measures(set_figures) for name, set_figures in by_set(figures).items()}
    grid = Table(box=None, header_style="dim", padding=(0, 3, 0, 0), pad_edge=False)
    grid.add_column("held-out set")
    for name in sets:
        grid.add_column(name, justify="right")
    for figure in dict.fromkeys(figure for texts in sets.values() for figure in texts):
        grid.add_row(figure, *(Text(texts.get(figure, "–"), "bold") for texts in sets.values()))
    return grid
