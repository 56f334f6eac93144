"""Finishers: annotation columns become plain arrays, strings, numbers and vectors."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql.types import StructField

from sparktasks.errors import ColumnError, ParamError, listed
from sparktasks.kernels.columns import TEXT
from sparktasks.kernels.finishers import VALUES, FinishColumn
from sparktasks.spark.annotator import Annotator
from sparktasks.spark.fusion import Chain
from sparktasks.spark.inputs import ANNOTATIONS, Visible
from sparktasks.spark.params import P, one_of, param
from sparktasks.spark.types import is_annotations, kind_of_type, spark_type
from sparktasks.spark.vectorized import quoted


class Finisher(Annotator):
    """Takes plain values out of annotation columns.

    Each input column gives one output column for each of ``values``: ``finished_NAME`` for results,
    ``finished_NAME_score`` and so on for the others. ``outputAs`` makes an array of a row's values, its first value, or
    (for results and errors of text columns) one string. Annotation columns are dropped unless
    ``cleanAnnotations=False``: what nobody reads then never leaves the Python worker.

    >>> from sparktasks import DocumentAssembler, LocalPipeline
    >>> LocalPipeline([DocumentAssembler(), Finisher(inputCols="document", outputAs="first")]).annotate("Hello")
    {'finished_document': 'Hello'}
    """

    inputCols: P[list[str]] = param("names of the annotation columns to read", default=["document"])
    outputCols: P[list[str] | None] = param(
        "names of the columns to write, one for each of inputCols; None: finished_NAME", default=None
    )
    values: P[list[str]] = param(
        "what is taken out of each annotation: fields of the column's kind, or error", default=["result"]
    )
    outputAs: P[str] = param(
        "how a row's values are written", default="array", check=one_of("array", "first", "string")
    )
    separator: P[str] = param("what stands between values with outputAs=string", default=" ")
    cleanAnnotations: P[bool] = param("whether annotation columns are dropped", default=True)

    def extend(self, chain: Chain) -> Chain:
        """Append one kernel for each output column, then drop the annotation columns."""
        # Before any is added: an output may overwrite an annotation column, and is none itself.
        annotations = [column for column in chain.visible if is_annotations(column.dataType)]
        outputs = list(self._outputs(chain))
        self.check_distinct([name for _, _, name in outputs])
        form = self.getOrDefault(self.outputAs)
        for column, value, name in outputs:
            dtype = self._type(column, value)
            kernel = FinishColumn(value, dtype, form, self.getOrDefault(self.separator))
            written = spark_type(pa.list_(dtype) if form == "array" else dtype)
            chain = chain.add(kernel, [column], StructField(name, written), self.uid)
        return chain.drop(annotations) if self.getOrDefault(self.cleanAnnotations) else chain

    def _outputs(self, chain: Chain) -> Iterator[tuple[Visible, str, str]]:
        """Yield, for each column to write, the column to read, the value to take out of it, and the name."""
        inputs, names = self.getOrDefault(self.inputCols), self.getOrDefault(self.outputCols)
        if names is None:
            names = [f"finished_{name}" for name in inputs]
        if len(names) != len(inputs):
            raise ParamError(f"{self.uid}: outputCols={names!r} must name one column for each of inputCols={inputs!r}")
        for input_name, name in zip(inputs, names, strict=True):
            column = chain.find(input_name, self.uid, ANNOTATIONS)
            for value in self.getOrDefault(self.values):
                yield column, value, name if value == "result" else f"{name}_{value}"

    def _type(self, column: Visible, value: str) -> pa.DataType:
        """Return the Arrow type of a value of a column; `ParamError` where the column has no such value."""
        # An input of a LocalPipeline has no type; what is put in there are texts.
        kind = kind_of_type(column.dataType) or TEXT
        fields = {field.name: field.type for field in kind.struct if not pa.types.is_map(field.type)}
        allowed = VALUES if kind is TEXT else fields | {"error": pa.string()}
        if value not in allowed:
            raise ParamError(
                f"{self.uid}: values has {value!r}, but the column {column.name!r} holds {kind.name} annotations: "
                f"it takes {listed(allowed)}"
            )
        # Numbers and vectors have no one way to be written, and pictures none.
        if self.getOrDefault(self.outputAs) == "string" and not pa.types.is_string(allowed[value]):
            raise ParamError(
                f"{self.uid}: outputAs='string' writes 'result' and 'error' of text columns only, not {value!r}. "
                "Use 'array' or 'first'"
            )
        return allowed[value]


class VectorFinisher(Annotator):
    """Takes the first embedding of each row as a Spark ML vector, for Spark's own estimators.

    Rows without an embedding get null. The vector is made by the JVM, so a chain of annotators ends here.
    """

    inputCol: P[str] = param("name of the annotation column to read", default="embeddings")
    outputCol: P[str] = param("name of the vector column to write", default="features")

    def extend(self, chain: Chain) -> Chain:
        """Append a kernel that gives the first embedding as an array of floats."""
        column = chain.find(self.getOrDefault(self.inputCol), self.uid, ANNOTATIONS)
        kind = kind_of_type(column.dataType)
        if kind not in (None, TEXT):
            raise ColumnError(
                f"{self.uid}: the column {column.name!r} holds {kind.name} annotations, and no embeddings"
            )
        kernel = FinishColumn("embeddings", VALUES["embeddings"], "first", "")
        output = StructField(self.getOrDefault(self.outputCol), spark_type(VALUES["embeddings"]))
        return chain.add(kernel, [column], output, self.uid)

    def _transform(self, dataset: DataFrame) -> DataFrame:
        from pyspark.ml.functions import array_to_vector
        from pyspark.sql import functions as F

        name = self.getOrDefault(self.outputCol)
        array = quoted(name)
        # array_to_vector fails on null.
        return super()._transform(dataset).withColumn(name, F.when(array.isNotNull(), array_to_vector(array)))
