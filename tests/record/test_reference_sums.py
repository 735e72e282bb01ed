"""Log-probabilities by the reference on disk: read again, completed, and refused where they are of another model."""

from pathlib import Path

import pytest

from rlframe.errors import ConfigError
from rlframe.record.reference_sums import ReferenceSums


def test_a_file_is_read_again_without_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "reference.jsonl"
    sums = ReferenceSums(path, "m1", "float32")
    sums.add({"a": [-1.5, -2.0]})
    with path.open("a") as file:
        file.write('{"row": "b", "logp')
    again = ReferenceSums(path, "m1", "float32")
    assert ("a" in again, "b" in again, again.rows) == (True, False, 0)
    again.add({"b": [-3.0]})
    again.complete(2)
    last = ReferenceSums(path, "m1", "float32")
    assert (last.of("a", "row 1"), last.of("b", "row 2"), last.rows) == ([-1.5, -2.0], [-3.0], 2)


def test_a_file_of_another_reference_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "reference.jsonl"
    ReferenceSums(path, "m1", "float32").add({"a": [-1.0]})
    with pytest.raises(ConfigError, match=r"model\.path: .*by another reference \(model m1, and now m2\); resume with"):
        ReferenceSums(path, "m2", "float32")
    with pytest.raises(ConfigError, match=r"learner\.dtype: .*\(dtype float32, and now bfloat16\)"):
        ReferenceSums(path, "m1", "bfloat16")


def test_a_row_that_has_changed_is_refused_by_name(tmp_path: Path) -> None:
    sums = ReferenceSums(tmp_path / "reference.jsonl", "m1", "float32")
    with pytest.raises(ConfigError, match=r"rows: row r1@0 has no log-probabilities by the reference in .*restore"):
        sums.of("a", "row r1@0")
