"""JSON texts as values of an Arrow type."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from sparktasks.kernels.columns import Annotations, split

_LARGEST = float(np.finfo(np.float64).max)


@dataclass(frozen=True)
class ReadJson:
    """annotations whose results are JSON -> the value of each row's first one; null where there is none, or where it is
    no JSON."""

    dtype: pa.DataType

    def __call__(self, *columns: pa.Array) -> pa.Array:
        source = Annotations(columns[0])
        values = []
        for texts in split(source.result, source.lengths):
            values.append(_value(texts[0], self.dtype) if texts else None)
        # pa.array imports pandas, but nothing else makes columns of any type.
        return pa.array(values, self.dtype)


def _value(text: str | None, dtype: pa.DataType) -> Any:
    if text is None:
        return None
    try:
        return fitted(json.loads(text), dtype)
    except (ValueError, RecursionError):
        # A model that ran out of tokens leaves half a value, or a thousand brackets.
        return None


def fitted(value: Any, dtype: pa.DataType) -> Any:
    """Fit a JSON value to an Arrow type, as Spark's ``from_json`` does; what does not fit is None.

    >>> fitted({"name": "Ann", "age": "?"}, pa.struct([("name", pa.string()), ("age", pa.int64())]))
    {'name': 'Ann', 'age': None}
    """
    fit_nested = _NESTED.get(type(dtype))
    if fit_nested is not None:
        return fit_nested(value, dtype)
    fit_leaf: Callable[[Any], Any] = _LEAVES.get(dtype, _integer)
    return fit_leaf(value)


def _struct(value: Any, dtype: pa.StructType) -> dict[str, Any] | None:
    if not isinstance(value, dict):
        return None
    return {field.name: fitted(value.get(field.name), field.type) for field in dtype}


def _pairs(value: Any, dtype: pa.MapType) -> list[tuple[str, Any]] | None:
    if not isinstance(value, dict):
        return None
    return [(key, fitted(item, dtype.item_type)) for key, item in value.items()]


def _list(value: Any, dtype: pa.ListType) -> list[Any] | None:
    if not isinstance(value, list):
        return None
    return [fitted(item, dtype.value_type) for item in value]


def _text(value: Any) -> str | None:
    if value is None:
        return None
    # As Spark does it: where a string is expected, any other value is one as it stands in the JSON.
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    # JSON can spell halves of characters, which no UTF-8 text can hold.
    return text.encode("utf-8", "replace").decode("utf-8")


def _truth_value(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _floating(value: Any) -> float | None:
    # NaN and infinity, which Python's reader lets pass, are no JSON; larger integers have no float.
    if type(value) not in _NUMBERS or not abs(value) <= _LARGEST:
        return None
    return float(value)


def _integer(value: Any) -> int | None:
    if type(value) not in _NUMBERS or not -(2**63) <= value < 2**63:
        return None
    return int(value) if float(value).is_integer() else None


# Not `isinstance`: to Python a truth value is an integer, too.
_NUMBERS = (int, float)

_NESTED: dict[type[pa.DataType], Callable[[Any, Any], Any]] = {
    pa.StructType: _struct,
    pa.MapType: _pairs,
    pa.ListType: _list,
}

# Every other type is one of integers.
_LEAVES: dict[pa.DataType, Callable[[Any], Any]] = {
    pa.string(): _text,
    pa.bool_(): _truth_value,
    pa.float16(): _floating,
    pa.float32(): _floating,
    pa.float64(): _floating,
}


# -- and back


def as_python(value: Any, dtype: pa.DataType) -> Any:
    """Return a value that Arrow gave, with dicts in the place of maps, which it gives as pairs.

    >>> as_python([("a", 1)], pa.map_(pa.string(), pa.int64()))
    {'a': 1}
    """
    convert = _AS_PYTHON.get(type(dtype))
    if value is None or convert is None:
        return value
    return convert(value, dtype)


def _struct_as_python(value: Any, dtype: pa.StructType) -> dict[str, Any]:
    return {field.name: as_python(value[field.name], field.type) for field in dtype}


def _map_as_python(value: Any, dtype: pa.MapType) -> dict[Any, Any]:
    return {key: as_python(item, dtype.item_type) for key, item in value}


def _list_as_python(value: Any, dtype: pa.ListType) -> Any:
    # Vectors are long, and have nothing in them to convert.
    if not pa.types.is_nested(dtype.value_type):
        return value
    return [as_python(item, dtype.value_type) for item in value]


_AS_PYTHON: dict[type[pa.DataType], Callable[[Any, Any], Any]] = {
    pa.StructType: _struct_as_python,
    pa.MapType: _map_as_python,
    pa.ListType: _list_as_python,
}
