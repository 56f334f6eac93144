"""What stages read: the columns of a chain, and the one place that tells whether a column fits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from pyspark.sql import Column
from pyspark.sql.types import (
    ArrayType,
    BooleanType,
    DataType,
    DateType,
    NumericType,
    StringType,
    StructType,
)

from sparktasks.errors import ColumnError, listed
from sparktasks.kernels.columns import KINDS, TEXT
from sparktasks.spark.types import is_annotations, kind_of_type


@dataclass(frozen=True)
class Wanted:
    """What a stage reads a column as.

    ``description`` is how an error names it. ``accepts`` is asked with the column's Spark type and metadata.
    ``local`` are the Arrow types that `LocalPipeline` builds its values as: the first that holds all of them.
    """

    description: str
    accepts: Callable[[DataType, Mapping[str, Any]], bool]
    local: tuple[pa.DataType, ...]


Projection = Callable[[Column], Column]


@dataclass(frozen=True)
class Visible:
    """A column as the user sees it after the chain: its Spark type, metadata, and the step that makes it or its
    position in the frame the chain started from.

    An input of a `LocalPipeline` has no Spark type, but ``wanted`` tells what it is read as. A column that Catalyst can
    compute from one of the frame's columns, too, has a ``projection``: the function that does, and that column's
    position. It then need not come back from Python.
    """

    name: str
    dataType: DataType | None
    metadata: dict[str, Any]
    step: int | None = None
    position: int | None = None
    wanted: Wanted | None = field(default=None, repr=False)
    projection: tuple[Projection, int] | None = field(default=None, repr=False)

    @property
    def known_type(self) -> DataType:
        """The Spark type; every column but an input of a `LocalPipeline` has one."""
        assert self.dataType is not None
        return self.dataType

    @property
    def known_position(self) -> int:
        """The position in the frame; every column has one that no step makes, and that is not of a `LocalPipeline`."""
        assert self.position is not None
        return self.position

    def fits(self, wanted: Wanted) -> bool:
        """Tell whether a stage may read this column as that."""
        return self.dataType is None or wanted.accepts(self.dataType, self.metadata)

    def described(self) -> str:
        """Say what this column is, for an error."""
        if self.dataType is None:
            return "of an unknown type"
        kind = self.metadata.get("annotatorType")
        return f"of type {kind}" if kind else self.dataType.simpleString()


def misfit(who: str, column: Visible, wanted: Wanted, visible: Sequence[Visible]) -> ColumnError:
    """Return the error for a column that does not fit: who reads it, what it is, what is expected, what would fit."""
    fitting = [other.name for other in visible if other.fits(wanted)]
    return ColumnError(
        f"{who}: the column {column.name!r} is {column.described()}, but {wanted.description} is expected. "
        f"Columns that would fit: {listed(fitting)}"
    )


def annotations_of(*kinds: str) -> Wanted:
    """Expect an annotation column of one of these annotator types."""

    def accepts(dtype: DataType, metadata: Mapping[str, Any]) -> bool:
        shape = kind_of_type(dtype)
        # Spark loses metadata in coalesce, na.fill, ORC: the shape alone must do then.
        return shape is KINDS[kinds[0]] and metadata.get("annotatorType", kinds[0]) in kinds

    return Wanted(f"a column of type {' or '.join(kinds)}", accepts, (KINDS[kinds[0]].column,))


def _any_annotations(dtype: DataType, metadata: Mapping[str, Any]) -> bool:
    return is_annotations(dtype)


def _is_string(dtype: DataType | None) -> bool:
    return isinstance(dtype, StringType)


def _are_strings(dtype: DataType | None) -> bool:
    return isinstance(dtype, ArrayType) and _is_string(dtype.elementType)


def _is_printable(dtype: DataType, metadata: Mapping[str, Any]) -> bool:
    if isinstance(dtype, (StringType, NumericType, BooleanType, DateType)):
        return True
    return _are_strings(dtype) or kind_of_type(dtype) is TEXT


def _is_chat(dtype: DataType, metadata: Mapping[str, Any]) -> bool:
    if not isinstance(dtype, ArrayType) or not isinstance(dtype.elementType, StructType):
        return False
    # A message may have more fields; these two are read.
    types = {field.name: field.dataType for field in dtype.elementType}
    return _is_string(types.get("role")) and _is_string(types.get("content"))


# What plain values are built as in a LocalPipeline, which has no column types to go by.
_STRINGS = pa.list_(pa.string())
_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))

ANNOTATIONS = Wanted("an annotation column", _any_annotations, (TEXT.column,))
STRING = Wanted("string", lambda dtype, _: _is_string(dtype), (pa.string(),))
STRINGS = Wanted("array<string>", lambda dtype, _: _are_strings(dtype), (_STRINGS,))
TEXTS = Wanted(
    "string or array<string>",
    lambda dtype, _: _is_string(dtype) or _are_strings(dtype),
    (pa.string(), _STRINGS),
)
CHATS = Wanted("array<struct<role:string,content:string>>", _is_chat, (_MESSAGES,))
PRINTABLE = Wanted(
    "a string, a number, a boolean, a date, an array of strings, or an annotation column (cast others to string, take "
    "one of their fields, or use to_json)",
    _is_printable,
    (pa.string(), pa.int64(), pa.float64(), pa.bool_(), pa.date32(), _STRINGS),
)
