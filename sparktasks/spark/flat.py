"""Nested columns as flat ones: how annotation columns pass through a ``pandas_udf``.

Annotation columns, ``array<struct<...>>``, become one array per field, a map field two arrays (keys and values).
Catalyst does it with ``transform`` on the way in and ``transform(arrays_zip(...))`` on the way out. Values of other
nested types, which kernels write only where they have read JSON, travel as JSON. Every other type passes as it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import to_arrow_type
from pyspark.sql.types import ArrayType, DataType, MapType, StringType, StructType

from sparktasks.spark.annotations import is_annotations
from sparktasks.spark.json_types import as_python

if TYPE_CHECKING:
    import pandas as pd


def _fields(dtype: DataType) -> list[tuple[str, DataType]] | None:
    """Return the fields of an array of structs, or None for any other type."""
    if isinstance(dtype, ArrayType) and isinstance(dtype.elementType, StructType):
        fields = [(field.name, field.dataType) for field in dtype.elementType.fields]
        return (
            None
            if any(_is_nested(kind.valueType if isinstance(kind, MapType) else kind) for _, kind in fields)
            else fields
        )
    return None


def _is_nested(dtype: DataType) -> bool:
    """Tell whether a type has fields or keys somewhere: pandas has no such columns."""
    return isinstance(dtype, (StructType, MapType)) or (isinstance(dtype, ArrayType) and _is_nested(dtype.elementType))


def flat_types(dtype: DataType) -> list[DataType]:
    """Return the types of the flat columns that come out for one column of type ``dtype``."""
    if not is_annotations(dtype):
        return [StringType()] if _is_nested(dtype) else [dtype]
    return [part for _, kind in _fields(dtype) or () for part in _parts(kind)]


def _parts(kind: DataType) -> list[DataType]:
    """Return the types of the flat columns of one field."""
    parts = [ArrayType(kind.keyType), ArrayType(kind.valueType)] if isinstance(kind, MapType) else [kind]
    return [ArrayType(part) for part in parts]


def flat_columns(column: Column, dtype: DataType) -> list[Column]:
    """Take a column apart, in Catalyst."""
    fields = _fields(dtype)
    if fields is None:
        return [column]
    flat = []
    for name, kind in fields:
        flat.extend(_projections(column, name, isinstance(kind, MapType)))
    return flat


def _projections(column: Column, name: str, is_map: bool) -> list[Column]:
    if is_map:
        return [
            F.transform(column, lambda x: F.map_keys(x[name])),
            F.transform(column, lambda x: F.map_values(x[name])),
        ]
    return [F.transform(column, lambda x: x[name])]


def assembled(flat: Sequence[Column], dtype: DataType) -> Column:
    """Put a column together from its flat columns, in Catalyst; the inverse of `flat_columns`."""
    fields = _fields(dtype) or []
    if not is_annotations(dtype):
        return F.from_json(flat[0], cast("StructType", dtype)) if _is_nested(dtype) else flat[0]
    names = [f"f{index}" for index in range(len(flat))]
    zipped = F.arrays_zip(*(column.alias(name) for column, name in zip(flat, names, strict=True)))

    def struct(x: Column) -> Column:
        parts = iter(names)
        made = []
        for name, kind in fields:
            value = F.map_from_arrays(x[next(parts)], x[next(parts)]) if isinstance(kind, MapType) else x[next(parts)]
            made.append(value.alias(name))
        return F.struct(*made)

    return F.transform(zipped, struct).cast(dtype)


def unflatten(batch: Sequence[pd.Series], types: Sequence[DataType]) -> list[pa.Array]:
    """Rebuild Arrow columns from the flat pandas columns of one batch."""
    series = iter(batch)
    return [_nested(dtype, series) for dtype in types]


def _nested(dtype: DataType, series: Iterator[pd.Series]) -> pa.Array:
    fields = _fields(dtype)
    if fields is None:
        return _arrow(next(series), dtype)
    arrays = []
    for _, kind in fields:
        parts = [_arrow(next(series), flat) for flat in _parts(kind)]
        arrays.append(_map(*(part.flatten() for part in parts)) if len(parts) == 2 else parts[0].flatten())
    struct = pa.StructArray.from_arrays(arrays, names=[name for name, _ in fields])
    return pa.ListArray.from_arrays(
        _offsets(pc.fill_null(pc.list_value_length(parts[0]), 0)), struct, mask=parts[0].is_null()
    )


def _arrow(series: pd.Series, dtype: DataType) -> pa.Array:
    return pa.Array.from_pandas(series, type=to_arrow_type(dtype))


def _map(keys: pa.ListArray, values: pa.ListArray) -> pa.MapArray:
    return pa.MapArray.from_arrays(
        _offsets(pc.fill_null(pc.list_value_length(keys), 0)), keys.flatten(), values.flatten()
    )


def _offsets(lengths: pa.Array) -> pa.Array:
    return pa.concat_arrays([pa.array([0], pa.int32()), pc.cumulative_sum(lengths).cast(pa.int32())])


def flat_arrays(column: pa.Array, dtype: DataType) -> list[pa.Array]:
    """Take an Arrow column apart the way `flat_types` says; the counterpart of `assembled`."""
    if not is_annotations(dtype):
        return [_as_json(column, dtype) if _is_nested(dtype) else column]
    offsets = _offsets(pc.fill_null(pc.list_value_length(column), 0))
    values: Any = column.flatten()
    flat: list[pa.Array] = []
    for index in range(values.type.num_fields):
        field = pc.struct_field(values, index)
        flat.extend(pa.ListArray.from_arrays(offsets, part) for part in _split_map(field))
    return flat


def _as_json(column: pa.Array, dtype: DataType) -> pa.Array:
    return pa.array(
        [None if value is None else json.dumps(as_python(value, dtype)) for value in column.to_pylist()], pa.string()
    )


def series(column: pa.Array) -> pd.Series:
    """Return a column as pandas keeps it; null numbers in lists stay None, where pandas would make them NaN."""
    import pandas as pd

    if pa.types.is_list(column.type) and pa.types.is_primitive(column.type.value_type) and column.flatten().null_count:
        return pd.Series(column.to_pylist(), dtype=object)
    plain: pd.Series = column.to_pandas()
    return plain


def _split_map(field: pa.Array) -> list[pa.Array]:
    if not pa.types.is_map(field.type):
        return [field]
    pairs = field.cast(pa.list_(pa.struct([field.type.key_field, field.type.item_field])))
    offsets = _offsets(pc.fill_null(pc.list_value_length(pairs), 0))
    return [pa.ListArray.from_arrays(offsets, pc.struct_field(pairs.flatten(), place)) for place in (0, 1)]
