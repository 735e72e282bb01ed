"""The sources of rows, and the order in which a run takes them."""

import json
from collections import Counter
from pathlib import Path

import pytest
from pydantic import ValidationError

from rlframe.rows.config import RowSet
from rlframe.rows.sources import Files, HubRows, SumPairs, WrittenSums, in_order
from rlframe.rows.stream import RowStream
from rlframe.rows.types import Demonstration


def write(path: Path, count: int, first: int = 0) -> str:
    records = [{"prompt": f"question {n}", "completion": f"answer {n}"} for n in range(first, first + count)]
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def stream(tmp_path: Path, seed: int = 0, **weights: float) -> RowStream:
    sources = {
        name: Files(path=write(tmp_path / f"{name}.jsonl", 10), weight=weight) for name, weight in weights.items()
    }
    return RowStream(sources, seed)


def epoch(rows: RowStream, number: int = 0) -> list[str]:
    return [rows.at(position).id for position in range(number * len(rows), (number + 1) * len(rows))]


def test_an_epoch_takes_every_row_once_in_an_order_of_its_own(tmp_path: Path) -> None:
    rows = stream(tmp_path, a=1.0)
    assert set(epoch(rows)) == set(epoch(rows, 1)) == {f"a.jsonl:{line}" for line in range(1, 11)}
    assert epoch(rows) != epoch(rows, 1)
    assert epoch(rows) == epoch(stream(tmp_path, a=1.0))
    assert epoch(rows) != epoch(stream(tmp_path, seed=1, a=1.0))


def test_weights_are_times_in_an_epoch(tmp_path: Path) -> None:
    rows = stream(tmp_path, a=1.5, b=0.3)
    counts = Counter(epoch(rows))
    assert len(rows) == 15 + 3
    assert Counter(counts[name] for name in counts if name.startswith("a")) == {1: 5, 2: 5}
    assert Counter(counts[name] for name in counts if name.startswith("b")) == {1: 3}
    assert set(epoch(rows)) != set(epoch(rows, 1))  # other rows a second time


def test_a_weight_that_leaves_no_row_of_a_part_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^parts\.b\.weight: 0\.04 of 10 rows is no row; raise it"):
        stream(tmp_path, a=1.0, b=0.04)


def test_the_parts_of_a_folder_are_read_in_order(tmp_path: Path) -> None:
    write(tmp_path / "stage" / "part_000001.jsonl", 2, first=2)
    write(tmp_path / "stage" / "part_000000.jsonl", 2)
    (tmp_path / "stage" / "counts.json").write_text("{}")
    rows = list(in_order(Files(path=str(tmp_path / "stage")).load()))
    assert [row.id for row in rows] == [f"part_{part:06d}.jsonl:{line}" for part in (0, 1) for line in (1, 2)]
    assert [row.answer for row in rows if isinstance(row, Demonstration)] == [f"answer {n}" for n in range(4)]


def test_parquet_and_a_local_data_set_give_the_same_rows(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    message, answer = {"role": "user", "content": "2 + 3?"}, {"role": "assistant", "content": "5"}
    table = {"messages": [[message, answer]] * 3, "level": [1, 2, 3]}
    (tmp_path / "data").mkdir()
    parquet.write_table(pyarrow.table(table), tmp_path / "data" / "train.parquet")
    by_file = Files(path=str(tmp_path / "data" / "*.parquet")).load()
    by_hub = HubRows(name="hub", path=str(tmp_path / "data")).load()
    for rows in (by_file, by_hub):
        assert len(rows) == 3
        row = rows[1]
        assert isinstance(row, Demonstration)
        assert (row.messages, row.answer) == ([message], "5")


def test_a_short_right_sum_is_better_than_a_wrong_one_and_than_many_words() -> None:
    wrong, wordy = SumPairs(name="sum_pairs", terms=2, below=50, seed=0, offset=0, size=2).load()
    assert (wrong.chosen, wrong.rejected) == ("10 + 16 = 26.", "10 + 16 = 29.")
    assert wordy.chosen == "0 + 38 = 38." and "0 + 38 is 38" in wordy.rejected


def test_written_sums_are_right_term_by_term() -> None:
    row = WrittenSums(name="sums", terms=3, below=50, seed=0, offset=0, size=1).load()[0]
    assert row.messages == [{"role": "user", "content": "What is 15 + 40 + 0?"}]
    assert row.answer == "<think>15 + 40 = 55. 55 + 0 = 55.</think><answer>55</answer>"


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("none.jsonl", "there is no file or folder"),
        ("", "the folder has no part_\\*.jsonl; name a file"),
        ("empty.jsonl", "no row"),
    ],
)
def test_a_path_without_rows_is_refused(tmp_path: Path, path: str, problem: str) -> None:
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(ValueError, match=problem):
        RowStream({"": Files(path=str(tmp_path / path))}, seed=0)


def test_a_folder_of_completions_is_no_folder_of_rows(tmp_path: Path) -> None:
    (tmp_path / "part_000001.jsonl.gz").touch()
    with pytest.raises(ValueError, match="completions with their scores, and no rows; let rlframe select make rows"):
        Files(path=str(tmp_path)).load()


def test_a_part_has_files_unless_it_names_another_source() -> None:
    rows = RowSet.model_validate(
        {"path": None, "parts": {"a": {"path": "a.jsonl"}, "b": {"name": "hub", "path": "o/n", "weight": 0.5}}}
    )
    assert [type(part) for part in rows.sources.values()] == [Files, HubRows]
    with pytest.raises(ValidationError, match="path and parts both name rows"):
        RowSet.model_validate({"path": "a.jsonl", "parts": {"a": {"path": "a.jsonl"}}})
