"""`rlframe merge` and `rlframe shrink`: folders that transformers opens, and refusals in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from rlframe.cli import merge, shrink


def test_models_merge_with_equal_weights(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert merge.main([f"out={out}", f"long={tiny_model}", f"short={tiny_model}"]) == 0
    assert capsys.readouterr().out.endswith(f"tensors, averaged of long, short, in {out}\n")
    AutoModelForCausalLM.from_pretrained(out)


def test_layers_are_dropped(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert shrink.main([str(tiny_model), f"out={out}", "keep_layers=[1]"]) == 0
    assert capsys.readouterr().out == f"1 of 2 layers in {out}\n"
    assert AutoModelForCausalLM.from_pretrained(out).config.num_hidden_layers == 1


def filled(arguments: list[str], model: Path, folder: Path) -> list[str]:
    """Arguments with a model in the place of MODEL, and a new folder in that of OUT."""
    return [argument.replace("MODEL", str(model)).replace("=OUT", f"={folder / 'out'}") for argument in arguments]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["a=MODEL", "b=MODEL"], "out: has no value; set out=FOLDER"),
        (["out=OUT", "m=MODEL", "m=MODEL", "n=MODEL"], "m: is given 2 times, and would count once"),
        (["out=OUT"], "an average needs two models or more"),
        (["out=OUT", "a=MODEL", "b=MODEL", "weights=[0.5"], "weights=[0.5: a value is no YAML"),
        (["out=OUT", "a=MODEL"], "an average needs two models or more"),
        (["out=OUT", "a=MODEL", "MODEL"], "is no key=value; see rlframe merge --help"),
        (["out=OUT", "a=MODEL", "b=/none"], "/none: there is no such Hugging Face folder"),
        (["out=OUT", "a=MODEL", "b=MODEL", "weights=half"], "weights: half is no list of numbers"),
        (["out=OUT", "a=MODEL", "b=MODEL", "weights=[1,1]"], "must be a number for each of a, b, of sum 1"),
        (["out=MODEL", "a=MODEL", "b=MODEL"], "exists already; choose another folder"),
        (["out=/none/at/all", "a=MODEL", "b=MODEL"], "out: there is no folder /none/at"),
    ],
)
def test_merges_that_cannot_work(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], line: str
) -> None:
    assert merge.main(filled(arguments, tiny_model, tmp_path)) == 2
    assert line in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["MODEL", "out=OUT"], "needs one model, out and keep_layers"),
        (["MODEL", "out=OUT", "keep_layers=[0.5]"], "keep_layers: [0.5] must be rising numbers from 0 to 1"),
        (["MODEL", "out=OUT", "keep_layers=[0,7]"], "keep_layers: [0, 7] must be rising numbers from 0 to 1"),
    ],
)
def test_students_that_cannot_be(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], line: str
) -> None:
    assert shrink.main(filled(arguments, tiny_model, tmp_path)) == 2
    assert line in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
