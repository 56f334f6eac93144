"""Arrow arrays from Python lists and numpy arrays, and back, without pandas.

``pa.array``, ``pa.scalar`` and ``Array.to_numpy`` import pandas where it is installed, which takes longer than
everything else that a fresh Spark worker imports. What is here works on the buffers, and is as fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_CONTINUES = 0x80  # the two highest bits of a byte that continues a character, in UTF-8
_HIGHEST = 0xC0


def strings(values: Sequence[str | None], lengths: np.ndarray | None = None) -> pa.StringArray:
    """Return strings as an Arrow array; None is null. ``lengths`` are their numbers of characters, where known.

    Raises `UnicodeEncodeError` for lone surrogates.
    """
    texts, nulls = _without_none(values, "")
    text = "".join(texts)
    data = text.encode("utf-8")
    offsets = np.zeros(len(values) + 1, np.int64)
    if lengths is None:
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    np.cumsum(lengths, out=offsets[1:])
    if len(data) != len(text):
        # Not all ASCII: the offsets count characters, and are looked up among the bytes that begin one.
        begins = np.flatnonzero((np.frombuffer(data, np.uint8) & _HIGHEST) != _CONTINUES)
        offsets = np.append(begins, len(data))[offsets]
    return pa.Array.from_buffers(
        pa.string(),
        len(values),
        [_bitmap(nulls), pa.py_buffer(_int32(offsets)), pa.py_buffer(data)],
    )


def numbers(values: Any, dtype: pa.DataType, nulls: np.ndarray | None = None) -> pa.Array:
    """Return numbers as an Arrow array of this type; ``nulls`` tells which are null."""
    array = np.ascontiguousarray(values, dtype.to_pandas_dtype())
    return pa.Array.from_buffers(dtype, len(array), [_bitmap(nulls), pa.py_buffer(array)])


def optional_numbers(values: Sequence[float | None], dtype: pa.DataType) -> pa.Array:
    """Return numbers, some of them None, as an Arrow array of this type."""
    filled, nulls = _without_none(values, 0)
    return numbers(filled, dtype, nulls)


def _without_none(values: Sequence[Any], filler: Any) -> tuple[Sequence[Any], np.ndarray | None]:
    """Return the values with a filler in the place of None, and which were None; no array where none was."""
    # The search runs in C, and most columns have no null: they pay for nothing else.
    if None not in values:
        return values, None
    nulls = np.array([value is None for value in values])
    return [filler if value is None else value for value in values], nulls


def booleans(values: np.ndarray) -> pa.BooleanArray:
    """Return truth values as an Arrow array."""
    return pa.Array.from_buffers(pa.bool_(), len(values), [None, _packed(values)])


def to_numpy(array: pa.Array) -> np.ndarray:
    """Return numbers or truth values, none of them null, as a numpy array, which is not to be written to."""
    # DLPack has no bits: Arrow packs eight truth values into a byte.
    if pa.types.is_boolean(array.type):
        return np.from_dlpack(array.cast(pa.uint8())).astype(bool)
    return np.from_dlpack(array)


def lengths_of(lists: pa.Array) -> np.ndarray:
    """Return the lengths of lists; that of null is 0."""
    lengths = pc.list_value_length(lists)
    if lengths.null_count:
        lengths = pc.fill_null(lengths, _ZERO)
    return to_numpy(lengths)


def offsets_of(lengths: Sequence[int] | np.ndarray, nulls: np.ndarray | None = None) -> pa.Array:
    """Return where lists of these lengths start and the last one ends, int32, shape ``(lists + 1,)``.

    ``nulls`` tells which lists are null: their offset is. Raises `OverflowError` beyond 2 GiB.
    """
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    if nulls is not None:
        # There is one offset more than there are lists, and the last one is never null.
        nulls = np.append(nulls, False)
    return numbers(_int32(offsets), pa.int32(), nulls)


def repeated(value: str, count: int) -> pa.Array:
    """Return one string ``count`` times, without a Python object for each."""
    return pa.repeat(strings([value])[0], count)


def _int32(offsets: np.ndarray) -> np.ndarray:
    if offsets[-1] > np.iinfo(np.int32).max:
        raise OverflowError(
            f"{offsets[-1]:,} values do not fit into one Arrow list; texts this long must be split first"
        )
    return offsets.astype(np.int32)


def _bitmap(nulls: np.ndarray | None) -> pa.Buffer | None:
    # Arrow spares readers the look at a bitmap that is not there.
    if nulls is None or not nulls.any():
        return None
    return _packed(~nulls)


def _packed(values: np.ndarray) -> pa.Buffer:
    return pa.py_buffer(np.packbits(values, bitorder="little"))


_ZERO = numbers([0], pa.int32())[0]
