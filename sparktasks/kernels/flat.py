"""Nested Arrow columns as flat ones: how they pass through a ``pandas_udf``, which would crawl on structs.

A struct becomes one column that tells whether it is there, and the columns of its fields; a map its keys and its
values; a list of nested values one list for each column of these. Every other type passes as it is. The structs of
annotation columns are always there, and have no column that tells so.

Catalyst takes columns apart and puts them together the same way on the other side (`sparktasks.spark.flat`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sparktasks.kernels.arrow import booleans, lengths_of, offsets_of, to_numpy
from sparktasks.kernels.columns import kind_of

if TYPE_CHECKING:
    import pandas as pd


# -- types


def flat_types(dtype: pa.DataType) -> list[pa.DataType]:
    """Return the types of the flat columns of a column of this type."""
    types_of = _FLAT_TYPES.get(type(dtype))
    if types_of is None:
        return [dtype]
    return types_of(dtype)


def _list_types(dtype: pa.ListType) -> list[pa.DataType]:
    # pandas takes lists of numbers and strings as they are.
    if not pa.types.is_nested(dtype.value_type):
        return [dtype]
    parts = flat_types(dtype.value_type)
    if kind_of(dtype) is not None:
        parts = parts[1:]
    return [pa.list_(part) for part in parts]


def _map_types(dtype: pa.MapType) -> list[pa.DataType]:
    keys = flat_types(pa.list_(dtype.key_type))
    items = flat_types(pa.list_(dtype.item_type))
    return [*keys, *items]


def _struct_types(dtype: pa.StructType) -> list[pa.DataType]:
    parts = [pa.bool_()]
    for field in dtype:
        parts.extend(flat_types(field.type))
    return parts


_FLAT_TYPES: dict[type[pa.DataType], Callable[[Any], list[pa.DataType]]] = {
    pa.ListType: _list_types,
    pa.MapType: _map_types,
    pa.StructType: _struct_types,
}


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
    put_together = _NESTED.get(type(dtype))
    if put_together is None:
        return next(parts)
    return put_together(dtype, parts)


def _nested_lists(dtype: pa.ListType, parts: Iterator[pa.Array]) -> pa.ListArray:
    if not pa.types.is_nested(dtype.value_type):
        return next(parts)
    lists = list(islice(parts, len(flat_types(dtype))))
    values = [part.flatten() for part in lists]
    if kind_of(dtype) is not None:
        # The column that did not travel: the structs of annotations are always there.
        values.insert(0, booleans(np.ones(len(values[0]), bool)))
    return _lists(lists[0], _nested(dtype.value_type, iter(values)), dtype)


def _nested_maps(dtype: pa.MapType, parts: Iterator[pa.Array]) -> pa.MapArray:
    keys = _nested(pa.list_(dtype.key_type), parts)
    items = _nested(pa.list_(dtype.item_type), parts)
    # A null offset makes a null map.
    offsets = offsets_of(lengths_of(keys), to_numpy(keys.is_null()))
    return pa.MapArray.from_arrays(offsets, keys.flatten(), items.flatten()).cast(dtype)


def _nested_structs(dtype: pa.StructType, parts: Iterator[pa.Array]) -> pa.StructArray:
    # Inside a null list or struct, Spark gives null for whether the struct is there.
    is_there = pc.fill_null(next(parts), False)
    fields = [_nested(field.type, parts) for field in dtype]
    return pa.StructArray.from_arrays(fields, fields=list(dtype), mask=pc.invert(is_there))


_NESTED: dict[type[pa.DataType], Callable[[Any, Iterator[pa.Array]], pa.Array]] = {
    pa.ListType: _nested_lists,
    pa.MapType: _nested_maps,
    pa.StructType: _nested_structs,
}


def _lists(like: pa.ListArray, values: pa.Array, dtype: pa.DataType) -> pa.ListArray:
    """Return lists of these values, as long as, and null where, those of ``like`` are."""
    return pa.ListArray.from_arrays(offsets_of(lengths_of(like)), values, type=dtype, mask=like.is_null())


# -- to Spark


def flat_arrays(column: pa.Array) -> list[pa.Array]:
    """Take an Arrow column apart the way `flat_types` says."""
    take_apart = _FLAT_ARRAYS.get(type(column.type))
    if take_apart is None:
        return [column]
    return take_apart(column)


def _list_arrays(column: pa.ListArray) -> list[pa.Array]:
    if not pa.types.is_nested(column.type.value_type):
        return [column]
    parts = flat_arrays(column.flatten())
    if kind_of(column.type) is not None:
        parts = parts[1:]
    offsets = offsets_of(lengths_of(column))
    nulls = column.is_null()
    return [pa.ListArray.from_arrays(offsets, part, mask=nulls) for part in parts]


def _map_arrays(column: pa.MapArray) -> list[pa.Array]:
    # Arrow cannot flatten a map; as a list of structs it has the same buffers.
    entries = column.cast(pa.list_(pa.struct([column.type.key_field, column.type.item_field])))
    pairs = entries.flatten()
    offsets = offsets_of(lengths_of(entries))
    nulls = entries.is_null()
    keys = pa.ListArray.from_arrays(offsets, pc.struct_field(pairs, 0), mask=nulls)
    items = pa.ListArray.from_arrays(offsets, pc.struct_field(pairs, 1), mask=nulls)
    return [*flat_arrays(keys), *flat_arrays(items)]


def _struct_arrays(column: pa.StructArray) -> list[pa.Array]:
    parts = [column.is_valid()]
    for index in range(column.type.num_fields):
        parts.extend(flat_arrays(pc.struct_field(column, index)))
    return parts


_FLAT_ARRAYS: dict[type[pa.DataType], Callable[[Any], list[pa.Array]]] = {
    pa.ListType: _list_arrays,
    pa.MapType: _map_arrays,
    pa.StructType: _struct_arrays,
}


def series(column: pa.Array) -> pd.Series:
    """Return a column as pandas keeps it; null numbers in lists stay None, where pandas would make them NaN."""
    import pandas as pd

    dtype = column.type
    holds_numbers = pa.types.is_list(dtype) and pa.types.is_primitive(dtype.value_type)
    if holds_numbers and column.flatten().null_count:
        return pd.Series(column.to_pylist(), dtype=object)
    converted: pd.Series = column.to_pandas()
    return converted
