"""Problems through `datasets`, from a local folder: no network."""

import datasets
import pytest

from rlframe.prompts import Hub
from rlframe.types import Problem


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A data set of three rows as a Parquet file, with a cache that is deleted after the test."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    rows = [{"question": f"{n} + 1?", "answer": f"#### {n + 1}", "level": 3} for n in range(3)]
    (tmp_path / "sums").mkdir()
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "sums" / "train.parquet")
    return tmp_path / "sums"


def hub(path, **changes) -> Hub:
    fields = {
        "name": "hub", "path": str(path), "subset": None, "split": "train", "prompt_field": "question",
        "messages_field": None, "reference_field": "answer", "reference_pattern": r"####\s*(.+)", "task": "math",
        "task_field": None, "extra_fields": ["level"], "offset": 1, "size": None,
    }  # fmt: skip
    return Hub(**(fields | changes))


def test_rows_after_the_offset_become_problems(folder):
    first, second = hub(folder).load()
    question = {"role": "user", "content": "1 + 1?"}
    assert first == Problem(id=f"{folder}/train:1", messages=[question], reference="2", task="math", extra={"level": 3})
    assert second.reference == "3"


def test_a_missing_field_is_named_with_the_fields_of_the_data_set(folder):
    with pytest.raises(ValueError, match=r"sums/train: no field 'solution'; it has 'question', 'answer', 'level'"):
        hub(folder, reference_field="solution").load()


def test_a_row_without_a_reference_is_named_by_its_index(folder):
    with pytest.raises(ValueError, match=r"row 1: field 'answer': reference_pattern .* finds nothing in '#### 2'"):
        hub(folder, reference_pattern="answer: (.+)").load()[0]


def test_a_slice_beyond_the_split_is_refused(folder):
    with pytest.raises(ValueError, match="offset 3 skips all of its 3 records"):
        hub(folder, offset=3).load()


def test_a_loading_script_is_refused_with_a_remedy(folder):
    (folder / "sums.py").write_text("import datasets\n")
    with pytest.raises(ValueError, match=r"sums \(train\): .*scripts are no longer supported.* refs/convert/parquet"):
        hub(folder).load()


def test_a_folder_that_is_missing_is_refused_with_remedies(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    with pytest.raises(
        ValueError, match=r"/no/sums \(train\): datasets cannot load it: .*HF_HUB_OFFLINE=1; HF_ENDPOINT"
    ):
        hub("/no/sums").load()
