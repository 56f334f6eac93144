"""Finisher: annotation columns become plain arrays, strings and numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from pyspark.sql.pandas.types import to_arrow_type
from pyspark.sql.types import ArrayType, DataType, FloatType, IntegerType, StringType, StructField

from sparktasks.errors import ColumnError, ParamError, listed
from sparktasks.spark.annotations import Annotations, is_annotations
from sparktasks.spark.annotator import Annotator
from sparktasks.spark.fusion import Chain, Visible
from sparktasks.spark.params import P, one_of, param

VALUES: dict[str, DataType] = {
    "result": StringType(),
    "score": FloatType(),
    "begin": IntegerType(),
    "end": IntegerType(),
    "embeddings": ArrayType(FloatType()),
    "error": StringType(),
}


class Finisher(Annotator):
    """Takes plain values out of annotation columns.

    Each input column gives one output column for each of ``values``: ``finished_NAME`` for results,
    ``finished_NAME_score`` and so on for the others. ``outputAs`` makes an array of a row's values, its first value, or
    (for results and errors) one string. Annotation columns are dropped unless ``cleanAnnotations=False``: what nobody
    reads then never leaves the Python worker.

    >>> from sparktasks import DocumentAssembler, LocalPipeline
    >>> LocalPipeline([DocumentAssembler(), Finisher(inputCols="document", outputAs="first")]).annotate("Hello")
    {'finished_document': 'Hello'}
    """

    inputCols: P[list[str]] = param("names of the annotation columns to read", default=["document"])
    outputCols: P[list[str] | None] = param(
        "names of the columns to write, one for each of inputCols; None: finished_NAME", default=None
    )
    values: P[list[str]] = param("what is taken out of each annotation", default=["result"], check=one_of(*VALUES))
    outputAs: P[str] = param(
        "how a row's values are written", default="array", check=one_of("array", "first", "string")
    )
    separator: P[str] = param("what stands between values with outputAs=string", default=" ")
    cleanAnnotations: P[bool] = param("whether annotation columns are dropped", default=True)

    def extend(self, chain: Chain) -> Chain:
        """Append one kernel for each output column, then drop the annotation columns."""
        annotations = [
            column for column in chain.visible if column.dataType is not None and is_annotations(column.dataType)
        ]
        wanted = [
            (column, value, name if value == "result" else f"{name}_{value}")
            for column, name in self._pairs(chain)
            for value in self.getOrDefault("values")
        ]
        self.check_distinct([name for _, _, name in wanted])
        for column, value, name in wanted:
            kernel = FinishColumn(value, self.getOrDefault("outputAs"), self.getOrDefault("separator"))
            chain = chain.add(kernel, [column], StructField(name, self._type(value)), self.uid)
        return chain.drop(annotations) if self.getOrDefault("cleanAnnotations") else chain

    def _pairs(self, chain: Chain) -> Iterator[tuple[Visible, str]]:
        names, outputs = self.getOrDefault("inputCols"), self.getOrDefault("outputCols")
        if outputs is not None and len(outputs) != len(names):
            raise ParamError(f"{self.uid}: outputCols={outputs!r} must name one column for each of inputCols={names!r}")
        for name, output in zip(names, outputs or [f"finished_{name}" for name in names], strict=True):
            yield find_annotations(chain, name, self.uid), output

    def _type(self, value: str) -> DataType:
        form = self.getOrDefault("outputAs")
        if form == "string" and not isinstance(VALUES[value], StringType):
            raise ParamError(
                f"{self.uid}: outputAs='string' writes 'result' and 'error' only, not {value!r}. Use 'array' or 'first'"
            )
        return ArrayType(VALUES[value]) if form == "array" else VALUES[value]


def find_annotations(chain: Chain, name: str, who: str) -> Visible:
    """Return an annotation column of any type; `ColumnError` where it is something else."""
    column = chain.find(name, who)
    if column.dataType is not None and not is_annotations(column.dataType):
        fitting = [
            other.name for other in chain.visible if other.dataType is not None and is_annotations(other.dataType)
        ]
        raise ColumnError(
            f"{who}: the column {name!r} is {column.dataType.simpleString()}, but an annotation column is wanted. "
            f"Columns that would fit: {listed(fitting)}"
        )
    return column


@dataclass(frozen=True)
class FinishColumn:
    """annotations -> plain values."""

    value: str
    form: str
    separator: str

    def __call__(self, *columns: pa.Array) -> pa.Array:
        source = Annotations(columns[0])
        lists = pa.ListArray.from_arrays(source.offsets(), source.values(self.value, to_arrow_type(VALUES[self.value])))
        if self.form == "array":
            return lists
        if self.form == "first":
            starts = np.cumsum(source.lengths) - source.lengths
            return lists.flatten().take(pa.array(starts, mask=source.lengths == 0))
        rows = [[value for value in row if value is not None] for row in lists.to_pylist()]
        return pa.array([self.separator.join(row) if row else None for row in rows], pa.string())
