"""Columns as they come from Spark or a user, made to what kernels expect."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sparktasks.kernels.arrow import lengths_of, offsets_of, strings, to_numpy


def plain(column: pa.Array) -> pa.Array:
    """Return the array as kernels expect it: with 32-bit offsets throughout, and with strings that are UTF-8.

    Spark may send ``large_string`` and ``large_list``, and hands on what a text file holds, whatever its encoding.
    """
    small = _small(column.type)
    if small != column.type:
        column = column.cast(small)
    try:
        # Nearly all columns are UTF-8: Arrow's check takes a fraction of what the repair does.
        column.validate(full=True)
    except pa.ArrowInvalid:
        return _readable(column)
    return column


# -- 32-bit offsets


def _small(dtype: pa.DataType) -> pa.DataType:
    """Return the type with 32-bit offsets in the place of 64-bit ones."""
    small_nested = _SMALL_NESTED.get(type(dtype))
    if small_nested is not None:
        return small_nested(dtype)
    return _SMALL_LEAVES.get(dtype, dtype)


def _small_list(dtype: pa.DataType) -> pa.ListType:
    return pa.list_(dtype.value_field.with_type(_small(dtype.value_type)))


def _small_map(dtype: pa.MapType) -> pa.MapType:
    return pa.map_(_small(dtype.key_type), _small(dtype.item_type))


def _small_struct(dtype: pa.StructType) -> pa.StructType:
    return pa.struct([field.with_type(_small(field.type)) for field in dtype])


_SMALL_LEAVES: dict[pa.DataType, pa.DataType] = {
    pa.large_string(): pa.string(),
    pa.large_binary(): pa.binary(),
}

_SMALL_NESTED: dict[type[pa.DataType], Callable[[Any], Any]] = {
    pa.ListType: _small_list,
    pa.LargeListType: _small_list,
    pa.MapType: _small_map,
    pa.StructType: _small_struct,
}


# -- strings that are UTF-8


def _readable(column: pa.Array) -> pa.Array:
    """Put U+FFFD in the place of bytes that are not UTF-8."""
    repair = _REPAIRS.get(type(column))
    return column if repair is None else repair(column)


def _readable_strings(column: pa.StringArray) -> pa.StringArray:
    texts: list[str | None] = []
    for content in column.cast(pa.binary()).to_pylist():
        texts.append(None if content is None else content.decode("utf-8", "replace"))
    return strings(texts)


def _readable_lists(column: pa.ListArray) -> pa.ListArray:
    values = _readable(column.flatten())
    return pa.ListArray.from_arrays(_list_offsets(column), values, type=column.type)


def _readable_structs(column: pa.StructArray) -> pa.StructArray:
    fields = [_readable(pc.struct_field(column, index)) for index in range(column.type.num_fields)]
    return pa.StructArray.from_arrays(fields, fields=list(column.type), mask=column.is_null())


def _readable_maps(column: pa.MapArray) -> pa.MapArray:
    # Arrow cannot flatten a map; as a list of structs it has the same buffers.
    entries = column.cast(pa.list_(pa.struct([column.type.key_field, column.type.item_field])))
    pairs = entries.flatten()
    keys = _readable(pc.struct_field(pairs, 0))
    items = _readable(pc.struct_field(pairs, 1))
    # The cast restores the names of the fields, and whether they may be null.
    return pa.MapArray.from_arrays(_list_offsets(entries), keys, items).cast(column.type)


_REPAIRS: dict[type[pa.Array], Callable[[Any], Any]] = {
    pa.StringArray: _readable_strings,
    pa.ListArray: _readable_lists,
    pa.StructArray: _readable_structs,
    pa.MapArray: _readable_maps,
}


def _list_offsets(column: pa.ListArray) -> pa.Array:
    """Return the offsets of lists as if they began at 0; a null offset stands for a null list."""
    return offsets_of(lengths_of(column), to_numpy(column.is_null()))
