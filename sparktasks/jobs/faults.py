"""The kernel that tells which rows have errors; it stands alone so that a worker which runs it imports no Spark."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from sparktasks.kernels.arrow import booleans
from sparktasks.kernels.columns import FlatColumn


@dataclass(frozen=True)
class FlagFaults:
    """annotation columns -> whether a row has an annotation that stands for an error."""

    def __call__(self, *columns: pa.Array) -> pa.Array:
        has_fault = np.zeros(len(columns[0]), bool)
        for column in columns:
            annotations = FlatColumn(column)
            faulty_rows = annotations.rows[annotations.faults]
            has_fault[faulty_rows] = True
        return booleans(has_fault)
