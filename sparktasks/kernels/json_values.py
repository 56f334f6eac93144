"""JSON texts as values of an Arrow type."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from sparktasks.kernels.columns import Annotations

_LARGEST = float(np.finfo(np.float64).max)


@dataclass(frozen=True)
class ReadJson:
    """annotations whose results are JSON -> the value of each row's first one; null where there is none, or where it is
    no JSON."""

    dtype: pa.DataType

    def __call__(self, *columns: pa.Array) -> pa.Array:
        source = Annotations(columns[0])
        values = []
        stop = 0
        for length in source.lengths:
            values.append(_value(source.result[stop], self.dtype) if length else None)
            stop += length
        return pa.array(values, self.dtype)


def _value(text: str | None, dtype: pa.DataType) -> Any:
    try:
        return None if text is None else fitted(json.loads(text), dtype)
    except (ValueError, RecursionError):
        return None


def fitted(value: Any, dtype: pa.DataType) -> Any:
    """Fit a JSON value to an Arrow type, as Spark's ``from_json`` does; what does not fit is None.

    >>> fitted({"name": "Ann", "age": "?"}, pa.struct([("name", pa.string()), ("age", pa.int64())]))
    {'name': 'Ann', 'age': None}
    """
    if pa.types.is_struct(dtype):
        if not isinstance(value, dict):
            return None
        return {field.name: fitted(value.get(field.name), field.type) for field in dtype}
    if pa.types.is_map(dtype):
        if not isinstance(value, dict):
            return None
        return [(key, fitted(item, dtype.item_type)) for key, item in value.items()]
    if pa.types.is_list(dtype):
        return [fitted(item, dtype.value_type) for item in value] if isinstance(value, list) else None
    if pa.types.is_string(dtype):
        return _text(value)
    return _scalar(value, dtype)


def _text(value: Any) -> str | None:
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    # JSON can spell halves of characters, which no UTF-8 text can hold.
    return text.encode("utf-8", "replace").decode("utf-8")


def _scalar(value: Any, dtype: pa.DataType) -> Any:
    if pa.types.is_boolean(dtype) or isinstance(value, bool):
        return value if pa.types.is_boolean(dtype) and isinstance(value, bool) else None
    if not isinstance(value, (int, float)):
        return None
    if pa.types.is_floating(dtype):
        return float(value) if abs(value) <= _LARGEST else None
    fits = -(2**63) <= value < 2**63 and float(value).is_integer()
    return int(value) if fits else None


def as_python(value: Any, dtype: pa.DataType) -> Any:
    """Return a value that Arrow gave, with dicts in the place of maps, which it gives as pairs.

    >>> as_python([("a", 1)], pa.map_(pa.string(), pa.int64()))
    {'a': 1}
    """
    if value is None:
        return None
    if pa.types.is_struct(dtype):
        return {field.name: as_python(value[field.name], field.type) for field in dtype}
    if pa.types.is_map(dtype):
        return {key: as_python(item, dtype.item_type) for key, item in value}
    if pa.types.is_list(dtype) and pa.types.is_nested(dtype.value_type):
        return [as_python(item, dtype.value_type) for item in value]
    return value
