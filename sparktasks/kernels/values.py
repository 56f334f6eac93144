"""Python values as Arrow columns of a known type: what users hand to `LocalPipeline`, without guessing."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import singledispatch
from pathlib import PurePath
from typing import Any

import numpy as np
import pyarrow as pa

from sparktasks.errors import ColumnError
from sparktasks.kernels.arrow import strings
from sparktasks.kernels.columns import Annotation, kind_of

_LEAVES = {pa.string(): str, pa.binary(): bytes, pa.bool_(): bool, pa.int32(): int, pa.int64(): int}
"""What Arrow would convert in silence where a value is of another type."""

_SURROGATE = re.compile("[\ud800-\udfff]")

_NAMES = {pa.string(): "a string", pa.binary(): "bytes", pa.int64(): "an integer", pa.float64(): "a number"}


def as_sequence(data: Any) -> list[Any] | None:
    """Return several inputs as a list; None where ``data`` is one input: a text, bytes, a dict, a number, a picture."""
    is_one = isinstance(data, (str, bytes, bytearray, Mapping, PurePath)) or _is_picture(data)
    if is_one or not isinstance(data, Iterable):
        return None
    return list(data)


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
    # The first value that fits no type is the one to show.
    wrong = plain[0]
    for value in plain:
        if all(_column([value], dtype) is None for dtype in dtypes):
            wrong = value
            break
    expected = " or ".join(_spelled(dtype) for dtype in dtypes)
    raise ColumnError(f"{who} expects {expected}, not {type(wrong).__name__}: {str(wrong)[:80]!r}")


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
    if type(value).__name__ in ("NAType", "NaTType"):  # pandas', which is not imported for this
        return None
    if isinstance(value, Iterable) and not _is_picture(value):
        return [plain_value(item) for item in value]
    return value


@plain_value.register
def _(value: str) -> str:
    return value


@plain_value.register(bytes)
@plain_value.register(bytearray)
def _(value: Any) -> bytes:
    return bytes(value)


@plain_value.register
def _(value: float) -> float | None:
    return None if math.isnan(value) else value


@plain_value.register
def _(value: np.generic) -> Any:
    return plain_value(value.item())


@plain_value.register
def _(value: PurePath) -> str:
    return str(value)


@plain_value.register
def _(value: Mapping) -> dict[Any, Any]:  # type: ignore[type-arg]
    return {key: plain_value(item) for key, item in value.items()}


@plain_value.register
def _(value: Annotation) -> dict[str, Any]:
    fields = value._asdict()
    fields["embeddings"] = [] if value.embeddings is None else plain_value(value.embeddings)
    return fields


def _is_picture(value: Any) -> bool:
    return hasattr(value, "save") and hasattr(value, "getbands")  # PIL's


# -- cells of a known type


def _cell(value: Any, dtype: pa.DataType) -> Any:
    """Return a value as `pa.array` takes it for this type; `TypeError` where it is of another type."""
    if value is None:
        return None
    if pa.types.is_nested(dtype):
        return _nested_cell(value, dtype)
    kind = _LEAVES.get(dtype)
    if kind is bytes and _is_picture(value):
        return _png(value)
    if isinstance(value, bool) and kind is not bool:
        raise TypeError  # to Python a truth value is a number, too
    if kind is None:
        return value
    _check(value, kind)
    return _without_surrogates(value) if kind is str else value


def _nested_cell(value: Any, dtype: pa.DataType) -> Any:
    if pa.types.is_list(dtype):
        _check(value, list)
        return [_cell(item, dtype.value_type) for item in value]
    _check(value, dict)
    if pa.types.is_struct(dtype):
        return {field.name: _cell(value.get(field.name), field.type) for field in dtype}
    return [(_cell(key, dtype.key_type), _cell(item, dtype.item_type)) for key, item in value.items()]


def _check(value: Any, kind: type) -> None:
    if not isinstance(value, kind):
        raise TypeError


def _png(picture: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def _without_surrogates(text: str) -> str:
    """Replace lone surrogates, which no UTF-8 text can hold, by U+FFFD, one code point each."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def _spelled(dtype: pa.DataType) -> str:
    if kind_of(dtype) is not None:
        return "annotations (begin the pipeline with an assembler)"
    if pa.types.is_list(dtype):
        return f"a list of {_spelled(dtype.value_type).removeprefix('a ')}s"
    return _NAMES.get(dtype, str(dtype))
