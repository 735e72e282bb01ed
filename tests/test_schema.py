"""What every config refuses, and how a class is picked by name or by import path."""

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
def test_nothing_is_taken_for_another_type(key, value):
    with pytest.raises(ValidationError, match=key):
        Oven(**(HALF_AN_HOUR | {key: value}))


def test_a_whole_number_is_a_number():
    assert Oven(**(HALF_AN_HOUR | {"minutes": 30})).minutes == 30.0


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nan_and_infinity_are_no_settings(value):
    with pytest.raises(ValidationError, match="finite"):
        Oven(**(HALF_AN_HOUR | {"minutes": value}))


def test_a_key_too_many_and_a_key_too_few_are_errors():
    with pytest.raises(ValidationError, match=r"grill\n.*Extra inputs"):
        Oven(**HALF_AN_HOUR, grill=True)
    with pytest.raises(ValidationError, match=r"fan\n.*required"):
        Oven(degrees=180, minutes=30.0)


def test_a_config_never_changes():
    with pytest.raises(ValidationError, match="frozen"):
        Oven(**HALF_AN_HOUR).degrees = 200


def test_a_name_picks_the_built_in_class_and_its_fields():
    assert one_of({"name": "grpo", "clip": 0.3}, Algorithm, BUILTIN) == GRPO(name="grpo", clip=0.3)


def test_an_import_path_picks_a_class_of_a_module():
    assert import_class("rlframe.algorithm.grpo:GRPO", Algorithm) is GRPO


def test_an_import_path_picks_a_class_of_a_file_with_fields_of_its_own(tmp_path):
    file = user_file(tmp_path, "class Mine(GRPO):\n    name: str\n    boost: float\n")
    mine = one_of({"name": f"{file}:Mine", "clip": 0.2, "boost": 1.5}, Algorithm, BUILTIN)
    assert (type(mine).__name__, mine.model_dump(exclude_defaults=True)) == (
        "Mine",
        {"name": f"{file}:Mine", "clip": 0.2, "boost": 1.5},
    )
    with pytest.raises(ValidationError, match="boots"):
        one_of({"name": f"{file}:Mine", "clip": 0.2, "boots": 1.5}, Algorithm, BUILTIN)


def test_a_file_is_loaded_once_so_that_its_class_stays_one_class(tmp_path):
    file = user_file(tmp_path, "class Mine(GRPO):\n    name: str\n")
    assert import_class(f"{file}:Mine", Algorithm) is import_class(f"{file}:Mine", Algorithm)


def test_two_files_of_one_name_in_two_folders_are_two_modules(tmp_path):
    first = user_file(tmp_path / "a", "class Mine(GRPO):\n    name: str\n    first: float\n")
    second = user_file(tmp_path / "b", "class Mine(GRPO):\n    name: str\n    second: float\n")
    fields = [import_class(f"{file}:Mine", Algorithm).model_fields.keys() for file in (first, second)]
    assert [names - GRPO.model_fields.keys() for names in fields] == [{"first"}, {"second"}]


def test_a_file_that_raises_is_told_in_its_own_words_and_can_be_mended(tmp_path):
    file = user_file(tmp_path, "clip = 1 / 0\n")
    for _ in range(2):  # the second time too: half a module is not left behind
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
def test_an_import_path_that_leads_nowhere_says_where_it_ends(path, message):
    with pytest.raises(ValueError, match=message):
        import_class(path, Algorithm)


@pytest.mark.parametrize("value", [{"name": "ppo"}, {"name": 3}, {}, "grpo", None])
def test_a_name_that_is_none_of_them_is_answered_with_all_of_them(value):
    with pytest.raises(ValueError, match=r"is none of .*dapo, .*grpo, .*nor an import path such as my_module:MyClass"):
        one_of(value, Algorithm, BUILTIN)
