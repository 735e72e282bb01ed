"""Problems from Parquet files, in the layout of verl."""

import datasets
import pyarrow
import pytest
from pyarrow import parquet

from rlframe.prompts import Parquet
from rlframe.prompts.base import in_order
from rlframe.types import Problem


def row(number: int) -> dict:
    return {
        "data_source": "sums" if number % 2 else None,
        "prompt": [{"role": "user", "content": f"{number} + 1?"}],
        "reward_model": {"ground_truth": number + 1, "style": "rule"},
        "image": b"PNG",
    }


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Rows 0 to 4 in two files, with a cache that is deleted after the test -> the pattern of their names."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    for name, numbers in (("part-1.parquet", [0, 1, 2]), ("part-2.parquet", [3, 4])):
        parquet.write_table(pyarrow.Table.from_pylist([row(number) for number in numbers]), tmp_path / name)
    return f"{tmp_path}/part-*.parquet"


def source(path: str, **changes) -> Parquet:
    fields = {
        "name": "parquet", "path": path, "prompt_field": None, "messages_field": "prompt",
        "reference_field": "reward_model.ground_truth", "reference_pattern": None, "task": "math", "task_field": None,
        "extra_fields": [], "offset": 0, "size": None,
    }  # fmt: skip
    return Parquet(**(fields | changes))


def test_files_of_a_pattern_are_one_table_in_the_order_of_names(files):
    problems = source(files, offset=1, size=3, task_field="data_source", extra_fields=["reward_model.style"]).load()
    question = [{"role": "user", "content": "3 + 1?"}]
    assert problems[2] == Problem(
        id="part-*.parquet:3", messages=question, reference="4", task="sums", extra={"reward_model.style": "rule"}
    )
    assert [problem.id for problem in in_order(problems)] == [f"part-*.parquet:{number}" for number in (1, 2, 3)]
    assert [problem.task for problem in in_order(problems)] == ["sums", "math", "sums"]  # null: the source's task
    assert list(in_order(problems)) == [problems[index] for index in range(3)]


def test_a_misspelled_field_is_refused_before_a_row_is_read(files):
    with pytest.raises(
        ValueError, match=r"part-\*\.parquet: no field 'reward_modle\.ground_truth'; it has .*did you mean"
    ):
        source(files, reference_field="reward_modle.ground_truth").load()
    with pytest.raises(ValueError, match=r"no field 'data_sorce'; it has .*; did you mean 'data_source'\?"):
        source(files, task_field="data_sorce").load()


def test_a_row_that_cannot_be_used_is_named(files):
    problems = source(files, messages_field=None, prompt_field="data_source").load()
    with pytest.raises(ValueError, match=r"part-\*\.parquet, row 2: field 'data_source' holds NoneType|null"):
        problems[2]


def test_a_pattern_without_files_is_refused(tmp_path):
    with pytest.raises(ValueError, match=f"path: there is no file {tmp_path}/part"):
        source(f"{tmp_path}/part-*.parquet").load()


def test_a_file_of_another_format_is_refused(tmp_path):
    (tmp_path / "rows.parquet").write_text("question,answer\n")
    with pytest.raises(ValueError, match=r"rows\.parquet: no Parquet file"):
        source(f"{tmp_path}/rows.parquet").load()


def test_a_slice_beyond_the_last_row_is_refused(files):
    with pytest.raises(ValueError, match="offset 5 skips all of its 5 records"):
        source(files, offset=5, size=2).load()


def test_a_folder_in_place_of_files_is_refused_with_the_pattern(tmp_path):
    with pytest.raises(ValueError, match=rf"for the files of a folder give {tmp_path}/\*\.parquet"):
        source(str(tmp_path)).load()
