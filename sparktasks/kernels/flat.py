"""Nested Arrow columns as flat ones: how they pass through a ``pandas_udf``, which would crawl on structs.

A struct becomes one column that tells whether it is there, and the columns of its fields; a map its keys and its
values; a list of nested values one list for each column of these. Every other type passes as it is. The structs of
annotation columns are always there, and have no column that tells so.

Catalyst takes columns apart and puts them together the same way on the other side (`sparktasks.spark.flat`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sparktasks.kernels.arrow import booleans, lengths_of, offsets_of, to_numpy
from sparktasks.kernels.columns import kind_of

if TYPE_CHECKING:
    import pandas as pd


def flat_types(dtype: pa.DataType) -> list[pa.DataType]:
    """Return the types of the flat columns of a column of this type."""
    if pa.types.is_list(dtype) and pa.types.is_nested(dtype.value_type):
        parts = flat_types(dtype.value_type)
        if kind_of(dtype) is not None:
            parts = parts[1:]
        return [pa.list_(part) for part in parts]
    if pa.types.is_map(dtype):
        return [*flat_types(pa.list_(dtype.key_type)), *flat_types(pa.list_(dtype.item_type))]
    if pa.types.is_struct(dtype):
        parts = [pa.bool_()]
        for field in dtype:
            parts.extend(flat_types(field.type))
        return parts
    return [dtype]


# -- from Spark


def unflatten(batch: Sequence[pd.Series], dtypes: Sequence[pa.DataType]) -> list[pa.Array]:
    """Rebuild Arrow columns from the flat pandas columns of one batch."""
    flat = iter(batch)
    columns = []
    for dtype in dtypes:
        parts = [pa.Array.from_pandas(next(flat), type=part) for part in flat_types(dtype)]
        columns.append(_nested(dtype, iter(parts)))
    return columns


def _nested(dtype: pa.DataType, parts: Iterator[pa.Array]) -> pa.Array:
    """Put the next flat arrays together to one of this type."""
    if pa.types.is_list(dtype) and pa.types.is_nested(dtype.value_type):
        count = len(flat_types(dtype))
        lists = [next(parts) for _ in range(count)]
        values = [part.flatten() for part in lists]
        if kind_of(dtype) is not None:
            values.insert(0, booleans(np.ones(len(values[0]), bool)))
        return _lists(lists[0], _nested(dtype.value_type, iter(values)), dtype)
    if pa.types.is_map(dtype):
        keys = _nested(pa.list_(dtype.key_type), parts)
        items = _nested(pa.list_(dtype.item_type), parts)
        # A null offset makes a null map.
        offsets = offsets_of(lengths_of(keys), to_numpy(keys.is_null()))
        return pa.MapArray.from_arrays(offsets, keys.flatten(), items.flatten()).cast(dtype)
    if pa.types.is_struct(dtype):
        there = pc.fill_null(next(parts), False)
        fields = [_nested(field.type, parts) for field in dtype]
        return pa.StructArray.from_arrays(fields, fields=list(dtype), mask=pc.invert(there))
    return next(parts)


def _lists(like: pa.ListArray, values: pa.Array, dtype: pa.DataType) -> pa.ListArray:
    """Return lists of these values, as long as, and null where, those of ``like`` are."""
    return pa.ListArray.from_arrays(offsets_of(lengths_of(like)), values, type=dtype, mask=like.is_null())


# -- to Spark


def flat_arrays(column: pa.Array) -> list[pa.Array]:
    """Take an Arrow column apart the way `flat_types` says."""
    dtype = column.type
    if pa.types.is_list(dtype) and pa.types.is_nested(dtype.value_type):
        parts = flat_arrays(column.flatten())
        if kind_of(dtype) is not None:
            parts = parts[1:]
        offsets, nulls = offsets_of(lengths_of(column)), column.is_null()
        return [pa.ListArray.from_arrays(offsets, part, mask=nulls) for part in parts]
    if pa.types.is_map(dtype):
        entries = column.cast(pa.list_(pa.struct([dtype.key_field, dtype.item_field])))
        pairs = entries.flatten()
        offsets, nulls = offsets_of(lengths_of(entries)), entries.is_null()
        keys = pa.ListArray.from_arrays(offsets, pc.struct_field(pairs, 0), mask=nulls)
        items = pa.ListArray.from_arrays(offsets, pc.struct_field(pairs, 1), mask=nulls)
        return [*flat_arrays(keys), *flat_arrays(items)]
    if pa.types.is_struct(dtype):
        parts = [column.is_valid()]
        for index in range(dtype.num_fields):
            parts.extend(flat_arrays(pc.struct_field(column, index)))
        return parts
    return [column]


def series(column: pa.Array) -> pd.Series:
    """Return a column as pandas keeps it; null numbers in lists stay None, where pandas would make them NaN."""
    import pandas as pd

    if pa.types.is_list(column.type) and pa.types.is_primitive(column.type.value_type) and column.flatten().null_count:
        return pd.Series(column.to_pylist(), dtype=object)
    converted: pd.Series = column.to_pandas()
    return converted
