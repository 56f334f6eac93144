"""Python values as Arrow columns of a known type: what users hand to `LocalPipeline`, without guessing."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
import pyarrow as pa

from sparktasks.errors import ColumnError
from sparktasks.kernels.arrow import strings
from sparktasks.kernels.columns import Annotation, kind_of


def as_sequence(data: Any) -> list[Any] | None:
    """Return several inputs as a list; None where ``data`` is one input: a text, bytes, a dict, a number, a picture."""
    if isinstance(data, (str, bytes, bytearray, Mapping, PurePath)) or not isinstance(data, Iterable):
        return None
    return list(data)


def typed_array(values: Sequence[Any], dtypes: Sequence[pa.DataType], who: str) -> pa.Array:
    """Make an Arrow column of the first of these types that holds all values; without types Arrow chooses.

    Missing values (None, NaN, pandas' NA) are null. Paths are strings; arrays, Series, tuples and generators are lists;
    pictures of PIL are PNG bytes where bytes are read. `ColumnError` where no type fits.
    """
    plain = [_plain(value) for value in values]
    if not dtypes:
        return pa.array(plain)
    for dtype in dtypes:
        try:
            converted = [_as(value, dtype) for value in plain]
            # pa.array imports pandas, which the first text of a new process would wait for.
            return strings(converted) if pa.types.is_string(dtype) else pa.array(converted, dtype)
        except (TypeError, ValueError, pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            continue
    wrong = next((value for value in plain if not _fits_one(value, dtypes)), plain[0])
    expected = " or ".join(_spelled(dtype) for dtype in dtypes)
    raise ColumnError(f"{who} expects {expected}, not {type(wrong).__name__}: {str(wrong)[:80]!r}")


def _plain(value: Any) -> Any:
    """Return a value as Python's own types have it, pictures as they are."""
    if value is None or isinstance(value, (str, bytes, bool, int)):
        return value
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if type(value).__name__ in ("NAType", "NaTType"):  # pandas', without importing it
        return None
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, bytearray):
        return bytes(value)
    if isinstance(value, Annotation):
        return value._asdict() | {
            "metadata": list(value.metadata.items()),
            "embeddings": _plain(value.embeddings) or [],
        }
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, Iterable) and not _is_picture(value):
        return [_plain(item) for item in value]
    return value


def _is_picture(value: Any) -> bool:
    return hasattr(value, "save") and hasattr(value, "getbands")  # PIL's


def _as(value: Any, dtype: pa.DataType) -> Any:
    """Return a value as `pa.array` takes it for this type; `TypeError` where it is of another type."""
    if value is None:
        return None
    if pa.types.is_string(dtype):
        if not isinstance(value, str):
            raise TypeError
        return _without_surrogates(value)
    if pa.types.is_binary(dtype):
        if _is_picture(value):
            return _png(value)
        if not isinstance(value, bytes):
            raise TypeError
        return value
    if pa.types.is_boolean(dtype) != isinstance(value, bool):
        raise TypeError
    if pa.types.is_list(dtype):
        if not isinstance(value, list):
            raise TypeError
        return [_as(item, dtype.value_type) for item in value]
    if pa.types.is_struct(dtype):
        if not isinstance(value, dict):
            raise TypeError
        return {field.name: _as(value.get(field.name), field.type) for field in dtype}
    if pa.types.is_map(dtype):
        entries = value.items() if isinstance(value, dict) else value
        return [(_as(key, dtype.key_type), _as(item, dtype.item_type)) for key, item in entries]
    if pa.types.is_floating(dtype) and not isinstance(value, (int, float)):
        raise TypeError
    return value


def _fits_one(value: Any, dtypes: Sequence[pa.DataType]) -> bool:
    for dtype in dtypes:
        try:
            pa.array([_as(value, dtype)], dtype)
        except (TypeError, ValueError, pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            continue
        return True
    return False


def _png(picture: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def _without_surrogates(text: str) -> str:
    """Replace lone surrogates, which no UTF-8 text can hold, by U+FFFD, one code point each."""
    if text.isascii():
        return text
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "".join(_replaced(text))
    return text


def _replaced(text: str) -> Iterator[str]:
    for character in text:
        yield "\ufffd" if "\ud800" <= character <= "\udfff" else character


def _spelled(dtype: pa.DataType) -> str:
    if kind_of(dtype) is not None:
        return "annotations (begin the pipeline with an assembler)"
    if pa.types.is_list(dtype):
        return f"a list of {_spelled(dtype.value_type).removeprefix('a ')}s"
    names = {pa.string(): "a string", pa.binary(): "bytes", pa.int64(): "an integer", pa.float64(): "a number"}
    return names.get(dtype, str(dtype))
