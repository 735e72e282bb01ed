"""`RowSource`: rows from files, a data set of the hub, or a class of one's own; `Joined`: several end to end."""

from __future__ import annotations

from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Protocol, TypeAlias

from pydantic import BeforeValidator, Field, SerializeAsAny

from rlframe.prompts.arithmetic import Arithmetic
from rlframe.prompts.hub import load_split
from rlframe.prompts.jsonl import Lines
from rlframe.prompts.parquet import load_files
from rlframe.prompts.table import Table
from rlframe.rows.records import FIELDS, SHAPES, row_of
from rlframe.rows.types import Comparison, Demonstration, Row
from rlframe.schema import Config, one_of
from rlframe.types import Problem

if TYPE_CHECKING:
    import pyarrow

PARTS = "part_*.jsonl"  # of a folder, in the order of their names


class Rows(Protocol):
    """A fixed list of rows, each made on access. An access raises ValueError with file, line and field."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Row: ...


class RowSource(Config):
    """A source of rows. A user's own source extends this class, and its import path is its name.

    Equal settings must `load` equal rows in the same order, because a resumed run continues by index.
    """

    name: str
    weight: float = Field(default=1.0, gt=0)  # times that each row is taken in an epoch; 0.5: half of the rows

    @abstractmethod
    def load(self) -> Rows:
        """Raises ValueError for a source that cannot be read."""


class Files(RowSource):
    """A JSONL file, a folder of files part_*.jsonl, or Parquet files by a pattern."""

    name: Literal["files"] = "files"
    path: str  # relative to the working directory, or absolute; ~ is the home folder

    def load(self) -> Rows:
        if self.path.endswith(".parquet"):
            return Table(load_files(self.path, _columns), Path(self.path).name, _columns, row_of)
        return Joined([Lines(file, row_of) for file in files_of(Path(self.path).expanduser())])


class HubRows(RowSource):
    """A split that `datasets.load_dataset` can load."""

    name: Literal["hub"]
    path: str  # a hub id such as HuggingFaceH4/no_robots, or a local folder
    subset: str | None = None
    split: str = "train"

    def load(self) -> Rows:
        rows = load_split(self.path, self.subset, self.split)
        return Table(rows, f"{self.path}/{self.split}", _columns, row_of)


class Sums(RowSource):
    """Rows on sums, for which no file is needed: the keys are those of `prompts.train` in arithmetic.yaml."""

    terms: int
    below: int
    seed: int
    offset: int
    size: int

    def problems(self) -> list[tuple[Problem, list[int]]]:
        """Each sum as a question with its answer, and its numbers."""
        sums = Arithmetic.model_validate({**self.model_dump(exclude={"weight"}), "name": "arithmetic"})
        return list(zip(sums.load(), sums.operands(), strict=True))


class WrittenSums(Sums):
    """Sums with their thoughts.

    >>> WrittenSums(name="sums", terms=3, below=50, seed=0, offset=0, size=1).load()[0].answer
    '<think>15 + 40 = 55. 55 + 0 = 55.</think><answer>55</answer>'
    """

    name: Literal["sums"]

    def load(self) -> list[Demonstration]:
        return [
            Demonstration(
                id=problem.id,
                messages=problem.messages,
                answer=f"<think>{_worked(operands)}</think><answer>{problem.reference}</answer>",
                task=problem.task,
                source=problem.id,
            )
            for problem, operands in self.problems()
        ]


class SumPairs(Sums):
    """Short and right answers to sums beside others: in turn a wrong sum, and the right one in many words.

    >>> row = SumPairs(name="sum_pairs", terms=2, below=50, seed=0, offset=0, size=1).load()[0]
    >>> row.chosen, row.rejected
    ('10 + 16 = 26.', '10 + 16 = 29.')
    """

    name: Literal["sum_pairs"]

    def load(self) -> list[Comparison]:
        rows = []
        for index, (problem, operands) in enumerate(self.problems()):
            question, total = " + ".join(map(str, operands)), int(problem.reference)
            wrong = f"{question} = {total + 3 + index % 8}."
            wordy = f"Sure, I can help you with that! The sum {question} is {total}. Do you have any other questions?"
            rows.append(
                Comparison(
                    id=problem.id,
                    messages=problem.messages,
                    chosen=f"{question} = {total}.",
                    rejected=wordy if index % 2 else wrong,
                    margin=None,
                    task=problem.task,
                    source=problem.id,
                )
            )
        return rows


BUILTIN: dict[str, type[RowSource]] = {"files": Files, "hub": HubRows, "sums": WrittenSums, "sum_pairs": SumPairs}

# SerializeAsAny: a saved config keeps all fields of the chosen class; pydantic alone would keep those of RowSource.
AnyRowSource: TypeAlias = Annotated[
    SerializeAsAny[RowSource],
    BeforeValidator(
        lambda value: one_of({"name": "files"} | value if isinstance(value, dict) else value, RowSource, BUILTIN)
    ),
]


class Joined:
    """Lists of rows end to end."""

    def __init__(self, lists: Sequence[Rows]) -> None:
        self._lists = lists
        self._ends = list(accumulate(map(len, lists)))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> Row:
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = bisect_right(self._ends, index)
        return self._lists[number][index - (self._ends[number - 1] if number else 0)]


def files_of(path: Path) -> list[Path]:
    """The file itself, or the parts in a folder. Raises ValueError where there is neither."""
    if path.is_dir():
        if parts := sorted(path.glob(PARTS)):
            return parts
        if any(path.glob(f"{PARTS}.gz")):
            raise ValueError(
                f"{path.resolve()}: the folder holds completions with their scores, and no rows; let rlframe select "
                "make rows of them, and name its file"
            )
        raise ValueError(f"{path.resolve()}: the folder has no {PARTS}; name a file")
    if not path.is_file():
        raise ValueError(f"there is no file or folder {path.resolve()}")
    return [path]


def in_order(rows: Rows) -> Iterator[Row]:
    """Every row, from the first to the last."""
    return (rows[index] for index in range(len(rows)))


def _columns(schema: pyarrow.Schema, where: str) -> list[str]:
    """The columns of a row's fields. Raises ValueError where there is none."""
    if found := [name for name in schema.names if name in FIELDS]:
        return found
    raise ValueError(f"{where}: has the columns {', '.join(schema.names)}; a row has {SHAPES}")


def _worked(operands: list[int]) -> str:
    """The sum term by term: 15 + 40 = 55. 55 + 0 = 55."""
    sums = list(accumulate(operands))
    lines = [f"{before} + {term} = {after}." for before, term, after in zip(sums, operands[1:], sums[1:], strict=False)]
    return " ".join(lines)
