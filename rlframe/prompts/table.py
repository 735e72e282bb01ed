"""`Table`: records of a data set as problems or rows, in Arrow files that the library `datasets` maps into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from rlframe.prompts.fields import unknown

if TYPE_CHECKING:
    import pyarrow
    from datasets import Dataset

T = TypeVar("T")

ROWS_AT_A_TIME = 1000  # that an iteration turns into Python values


class Table(Generic[T]):
    """The records of a source's slice; a record becomes Python values when its problem or row is asked for.

    Accessing a row raises ValueError with the row and the field if a field cannot be used.
    """

    def __init__(
        self,
        rows: Dataset,
        name: str,
        columns_of: Callable[[pyarrow.Schema, str], list[str]],
        read: Callable[[Mapping[str, Any], str, str], T],
        bounds: Callable[[int, str], range] = lambda total, _: range(total),
    ) -> None:
        """`name`: of the data set, in ids and in errors. `columns_of`: the columns in use; raises ValueError for a
        field that is missing. `read` makes the value of a record, its id and its place. `bounds`: the records in use.
        """
        import pyarrow

        # datasets has just written its cache: a third of a GB that this process would hold to its end.
        pyarrow.default_memory_pool().release_unused()
        self._name = name
        self._read = read
        self._indices = bounds(len(rows), name)
        rows = rows.select_columns(columns_of(rows.features.arrow_schema, name))
        self._rows = rows.select(self._indices).with_format("arrow")

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> T:
        row: Any = self._rows[index]
        return self._value(index, row.to_pylist()[0])

    def __iter__(self) -> Iterator[T]:
        index = 0
        for batch in self._rows.iter(ROWS_AT_A_TIME):
            rows: Any = batch
            for row in rows.to_pylist():
                yield self._value(index, row)
                index += 1

    def _value(self, index: int, row: dict[str, Any]) -> T:
        number = self._indices[index]
        return self._read(row, f"{self._name}:{number}", f"{self._name}, row {number}")


def columns(schema: pyarrow.Schema, fields: list[str], where: str) -> list[str]:
    """The columns that hold the fields: of `reward_model.ground_truth` the column `reward_model`.

    Other columns are never read: they may hold images. Raises ValueError, whose message starts with `where`, for a
    field that is missing.
    """
    names = [name for field in schema for name in _names(field, "")]
    for field in fields:
        if field not in names:
            raise ValueError(f"{where}: {unknown(field, names)}")
    return [name for name in schema.names if any(f"{field}.".startswith(f"{name}.") for field in fields)]


def _names(field: pyarrow.Field, prefix: str) -> Iterator[str]:
    """Dotted names of a column and of the fields inside it."""
    import pyarrow

    yield f"{prefix}{field.name}"
    if pyarrow.types.is_struct(field.type):
        for inner in field.type.fields:
            yield from _names(inner, f"{prefix}{field.name}.")
