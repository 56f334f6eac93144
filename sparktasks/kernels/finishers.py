"""Finishers on the executor: plain values out of annotation columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from sparktasks.kernels.arrow import lengths_of, numbers, strings
from sparktasks.kernels.columns import Annotations, FlatColumn

VALUES: dict[str, pa.DataType] = {
    "result": pa.string(),
    "score": pa.float32(),
    "begin": pa.int32(),
    "end": pa.int32(),
    "embeddings": pa.list_(pa.float32()),
    "error": pa.string(),
}
"""What a finisher takes out of text annotations, and its Arrow type."""


@dataclass(frozen=True)
class FinishColumn:
    """annotations -> plain values.

    ``value`` is a field of the annotations, or ``error``; ``form`` is ``array``, ``first`` or ``string``.
    """

    value: str
    dtype: pa.DataType
    form: str
    separator: str

    def __call__(self, *columns: pa.Array) -> pa.Array:
        source = FlatColumn(columns[0])
        lists = pa.ListArray.from_arrays(source.offsets, self._values(source, columns[0]))
        if self.form == "array":
            return lists
        if self.form == "first":
            starts = np.cumsum(source.lengths) - source.lengths
            return lists.flatten().take(numbers(starts, pa.int64(), source.lengths == 0))
        rows = []
        for row in lists.to_pylist():
            values = [value for value in row if value is not None]
            rows.append(self.separator.join(values) if values else None)
        return strings(rows)

    def _values(self, source: FlatColumn, column: pa.Array) -> pa.Array:
        if self.value in ("begin", "end"):
            return numbers(getattr(Annotations(column), self.value), self.dtype)
        values = source.values(self.value, self.dtype)
        if self.value != "embeddings":
            return values
        # An annotation without a vector has an empty one in the column, and none in the finished value.
        return values.take(numbers(np.arange(len(values)), pa.int64(), lengths_of(values) == 0))
