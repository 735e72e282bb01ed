"""Refusals of every config, and the choice of a class by name or by import path."""

import math
from pathlib import Path

import pytest
from pydantic import ValidationError

from rlframe.algorithm import BUILTIN, GRPO, Algorithm
from rlframe.schema import Config, import_class, one_of


class Oven(Config):
    degrees: int
    minutes: float
    fan: bool


HALF_AN_HOUR = {"degrees": 180, "minutes": 30.0, "fan": True}


def user_file(folder: Path, body: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "mine.py"
    file.write_text("from rlframe.algorithm import GRPO, Algorithm\n" + body)
    return file


@pytest.mark.parametrize(
    "key, value",
    [("degrees", "180"), ("degrees", 180.0), ("degrees", True), ("minutes", "30"), ("fan", 1), ("fan", "yes")],
)
def test_a_value_is_never_converted_to_another_type(key, value):
    with pytest.raises(ValidationError, match=key):
        Oven(**(HALF_AN_HOUR | {key: value}))


def test_an_integer_is_a_valid_float():
    assert Oven(**(HALF_AN_HOUR | {"minutes": 30})).minutes == 30.0


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nan_and_infinity_are_refused(value):
    with pytest.raises(ValidationError, match="finite"):
        Oven(**(HALF_AN_HOUR | {"minutes": value}))


def test_unknown_and_missing_keys_are_refused():
    with pytest.raises(ValidationError, match=r"grill\n.*Extra inputs"):
        Oven(**HALF_AN_HOUR, grill=True)
    with pytest.raises(ValidationError, match=r"fan\n.*required"):
        Oven(degrees=180, minutes=30.0)


def test_a_config_is_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        Oven(**HALF_AN_HOUR).degrees = 200


def test_a_name_picks_a_built_in_class():
    assert one_of({"name": "grpo", "clip": 0.3}, Algorithm, BUILTIN) == GRPO(name="grpo", clip=0.3)


def test_an_import_path_picks_a_class_of_a_module():
    assert import_class("rlframe.algorithm.grpo:GRPO", Algorithm) is GRPO


def test_an_import_path_picks_a_class_of_a_file(tmp_path):
    file = user_file(tmp_path, "class Mine(GRPO):\n    name: str\n    boost: float\n")
    mine = one_of({"name": f"{file}:Mine", "clip": 0.2, "boost": 1.5}, Algorithm, BUILTIN)
    assert (type(mine).__name__, mine.model_dump(exclude_defaults=True)) == (
        "Mine",
        {"name": f"{file}:Mine", "clip": 0.2, "boost": 1.5},
    )
    with pytest.raises(ValidationError, match="boots"):
        one_of({"name": f"{file}:Mine", "clip": 0.2, "boots": 1.5}, Algorithm, BUILTIN)


def test_a_file_is_loaded_once(tmp_path):
    file = user_file(tmp_path, "class Mine(GRPO):\n    name: str\n")
    assert import_class(f"{file}:Mine", Algorithm) is import_class(f"{file}:Mine", Algorithm)


def test_files_of_equal_name_in_two_folders_are_two_modules(tmp_path):
    first = user_file(tmp_path / "a", "class Mine(GRPO):\n    name: str\n    first: float\n")
    second = user_file(tmp_path / "b", "class Mine(GRPO):\n    name: str\n    second: float\n")
    fields = [import_class(f"{file}:Mine", Algorithm).model_fields.keys() for file in (first, second)]
    assert [names - GRPO.model_fields.keys() for names in fields] == [{"first"}, {"second"}]


def test_a_file_that_raises_can_be_corrected_and_loaded_again(tmp_path):
    file = user_file(tmp_path, "clip = 1 / 0\n")
    for _ in range(2):  # a failed import leaves no module behind, so the second import raises too
        with pytest.raises(ZeroDivisionError):
            import_class(f"{file}:Mine", Algorithm)
    user_file(tmp_path, "class Mine(GRPO):\n    name: str\n")
    assert import_class(f"{file}:Mine", Algorithm).__name__ == "Mine"


@pytest.mark.parametrize(
    "path, message",
    [
        ("no/such/file.py:Mine", r"there is no file /.*/no/such/file\.py"),
        ("no_such_module:Mine", r"cannot import 'no_such_module' \(No module named 'no_such_module'\)"),
        ("rlframe.algorithm.grpo:GPRO", r"rlframe\.algorithm\.grpo has no class 'GPRO'"),
        ("rlframe.types:Prompt", r"has no class 'Prompt' that extends rlframe\.algorithm\.base:Algorithm"),
        ("rlframe.algorithm.ops:standardize", "has no class 'standardize'"),
    ],
)
def test_a_wrong_import_path_is_refused_with_the_reason(path, message):
    with pytest.raises(ValueError, match=message):
        import_class(path, Algorithm)


@pytest.mark.parametrize("value", [{"name": "ppo"}, {"name": 3}, {}, "grpo", None])
def test_an_unknown_name_lists_all_known_names(value):
    with pytest.raises(ValueError, match=r"is none of .*dapo, .*grpo, .*nor an import path such as my_module:MyClass"):
        one_of(value, Algorithm, BUILTIN)
