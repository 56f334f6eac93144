"""Python values as Arrow columns of a known type: what users hand to `LocalPipeline`, without guessing."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import singledispatch
from pathlib import PurePath
from typing import Any

import numpy as np
import pyarrow as pa

from sparktasks.errors import ColumnError
from sparktasks.kernels.arrow import strings
from sparktasks.kernels.columns import Annotation, kind_of

# What can be iterated over, and is one input all the same.
_SINGLE = (str, bytes, bytearray, Mapping, PurePath)

_SURROGATE = re.compile("[\ud800-\udfff]")

_NAMES = {pa.string(): "a string", pa.binary(): "bytes", pa.int64(): "an integer", pa.float64(): "a number"}


def as_sequence(data: Any) -> list[Any] | None:
    """Return several inputs as a list; None where ``data`` is one input: a text, bytes, a dict, a number, a picture."""
    if isinstance(data, _SINGLE) or _is_picture(data):
        return None
    return list(data) if isinstance(data, Iterable) else None


def typed_array(values: Sequence[Any], dtypes: Sequence[pa.DataType], who: str) -> pa.Array:
    """Make an Arrow column of the first of these types that holds all values; without types Arrow chooses.

    Missing values (None, NaN, pandas' NA) are null. Paths are strings; arrays, Series, tuples and generators are lists;
    pictures of PIL are PNG bytes where bytes are read. `ColumnError` where no type fits.
    """
    plain = [plain_value(value) for value in values]
    if not dtypes:
        return pa.array(plain)
    for dtype in dtypes:
        column = _column(plain, dtype)
        if column is not None:
            return column
    wrong = _first_misfit(plain, dtypes)
    expected = " or ".join(_spelled(dtype) for dtype in dtypes)
    raise ColumnError(f"{who} expects {expected}, not {type(wrong).__name__}: {str(wrong)[:80]!r}")


def _first_misfit(values: Sequence[Any], dtypes: Sequence[pa.DataType]) -> Any:
    """Return the first value that fits no type; where each fits one, but not all the same, the first value."""
    for value in values:
        if all(_column([value], dtype) is None for dtype in dtypes):
            return value
    return values[0]


def _column(values: Sequence[Any], dtype: pa.DataType) -> pa.Array | None:
    """Return the values as a column of this type; None where one is of another type."""
    try:
        cells = [_cell(value, dtype) for value in values]
        # pa.array imports pandas, which the first text of a new process would wait for.
        return strings(cells) if pa.types.is_string(dtype) else pa.array(cells, dtype)
    except (TypeError, ValueError, pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return None


# -- values as Python's own types have them


@singledispatch
def plain_value(value: Any) -> Any:
    """Return a value as Python's own types have it, pictures as they are."""
    # pandas' missing values are told by name: pandas is not imported for this, and may not be installed.
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    if isinstance(value, Iterable) and not _is_picture(value):
        return [plain_value(item) for item in value]
    return value


# A string can be iterated over, and its items are strings again: without this, it would never end.
@plain_value.register
def _(value: str) -> str:
    return value


@plain_value.register
def _(value: float) -> float | None:
    return None if math.isnan(value) else value


@plain_value.register
def _(value: np.generic) -> Any:
    return plain_value(value.item())


plain_value.register(bytes, bytes)
plain_value.register(bytearray, bytes)
plain_value.register(PurePath, str)


@plain_value.register
def _(value: Mapping) -> dict[Any, Any]:  # type: ignore[type-arg]
    return {key: plain_value(item) for key, item in value.items()}


@plain_value.register
def _(value: Annotation) -> dict[str, Any]:
    fields = value._asdict()
    fields["embeddings"] = [] if value.embeddings is None else plain_value(value.embeddings)
    return fields


def _is_picture(value: Any) -> bool:
    # Only PIL's pictures have it; PIL itself may not be installed.
    return hasattr(value, "getbands")


# -- cells of a known type


def _cell(value: Any, dtype: pa.DataType) -> Any:
    """Return a value as `pa.array` takes it for this type; `TypeError` where it is of another type.

    Arrow would convert some of them in silence: a number to a string, a truth value to a number.
    """
    if value is None:
        return None
    nested_cell = _NESTED_CELLS.get(type(dtype))
    if nested_cell is not None:
        return nested_cell(value, dtype)
    leaf_cell = _LEAF_CELLS.get(dtype, _number_cell)
    return leaf_cell(value)


def _list_cell(value: Any, dtype: pa.ListType) -> list[Any]:
    _check(value, list)
    return [_cell(item, dtype.value_type) for item in value]


def _struct_cell(value: Any, dtype: pa.StructType) -> dict[str, Any]:
    _check(value, dict)
    return {field.name: _cell(value.get(field.name), field.type) for field in dtype}


def _map_cell(value: Any, dtype: pa.MapType) -> list[tuple[Any, Any]]:
    _check(value, dict)
    return [(_cell(key, dtype.key_type), _cell(item, dtype.item_type)) for key, item in value.items()]


def _string_cell(value: Any) -> str:
    """Replace lone surrogates, which no UTF-8 text can hold, by U+FFFD, one code point each."""
    _check(value, str)
    return value if value.isascii() else _SURROGATE.sub("\ufffd", value)


def _binary_cell(value: Any) -> bytes:
    if _is_picture(value):
        return _png(value)
    _check(value, bytes)
    content: bytes = value
    return content


def _boolean_cell(value: Any) -> bool:
    _check(value, bool)
    return bool(value)


def _number_cell(value: Any) -> Any:
    # To Python a truth value is a number, too.
    if isinstance(value, bool):
        raise TypeError
    return value


def _integer_cell(value: Any) -> int:
    _check(value, int)
    integer: int = _number_cell(value)
    return integer


_NESTED_CELLS: dict[type[pa.DataType], Callable[[Any, Any], Any]] = {
    pa.ListType: _list_cell,
    pa.StructType: _struct_cell,
    pa.MapType: _map_cell,
}

# What has another type is left to Arrow, which does not convert it in silence.
_LEAF_CELLS: dict[pa.DataType, Callable[[Any], Any]] = {
    pa.string(): _string_cell,
    pa.binary(): _binary_cell,
    pa.bool_(): _boolean_cell,
    pa.int32(): _integer_cell,
    pa.int64(): _integer_cell,
}


def _check(value: Any, kind: type) -> None:
    if not isinstance(value, kind):
        raise TypeError


def _png(picture: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def _spelled(dtype: pa.DataType) -> str:
    if kind_of(dtype) is not None:
        return "annotations (begin the pipeline with an assembler)"
    if pa.types.is_list(dtype):
        return f"a list of {_spelled(dtype.value_type).removeprefix('a ')}s"
    return _NAMES.get(dtype, str(dtype))
