"""DocumentAssembler: text columns become document columns."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql.types import ArrayType, DataType, StringType, StructField

from sparktasks.errors import ColumnError, ParamError, listed
from sparktasks.spark.annotations import ANNOTATIONS, DOCUMENT, assemble
from sparktasks.spark.annotator import Annotator
from sparktasks.spark.fusion import Chain
from sparktasks.spark.params import P, one_of, param

_SPACE = re.compile(r"[ \t\n\x0b\f\r]")
_RUN = re.compile(r"[ \t\n\x0b\f\r]+")
_ESCAPE = re.compile(r"\\r\\n|\\n|\\t|\\r")
_LINE = re.compile(r"[ \t\n\x0b\f\r](?=[\n\t])")


def _shrink(text: str) -> str:
    return _RUN.sub(" ", text).strip(" ")


# What Spark NLP's modes of the same names do; "escapes" are a backslash and a letter, as left by careless exports.
CLEANUP: dict[str, Callable[[str], str] | None] = {
    "disabled": None,
    "inplace": lambda text: _SPACE.sub(" ", text),
    "inplace_full": lambda text: _SPACE.sub(" ", _ESCAPE.sub(" ", text)),
    "shrink": _shrink,
    "shrink_full": lambda text: _shrink(_ESCAPE.sub(" ", text)),
    "each": lambda text: _LINE.sub(" ", text),
    "each_full": lambda text: _LINE.sub(" ", _ESCAPE.sub(" ", text)),
    "delete_full": lambda text: _ESCAPE.sub("", text.strip()),
}


class DocumentAssembler(Annotator):
    """Turns text columns (string, or array<string> with one document per element) into document columns.

    Null and empty texts give no document. Metadata: ``sentence``, the index of the element (0 for a string).
    Offsets of everything downstream refer to the document's result, that is, to the text after ``cleanupMode``.

    >>> DocumentAssembler(inputCol="text").getOutputCol()
    'document'
    """

    inputCol: P[str] = param("name of the text column to read", default="text")
    outputCol: P[str] = param("name of the document column to write", default="document")
    inputCols: P[list[str] | None] = param("names of several text columns, instead of inputCol", default=None)
    outputCols: P[list[str] | None] = param("names of the document columns, one for each of inputCols", default=None)
    cleanupMode: P[str] = param(
        "what is done to white space before anything else", default="disabled", check=one_of(*CLEANUP)
    )

    def extend(self, chain: Chain) -> Chain:
        """Append one kernel for each column."""
        self.check_distinct([output for _, output in self._pairs()])
        for name, output in self._pairs():
            column = chain.find(name, self.uid)
            if column.dataType is not None and not _is_text(column.dataType):
                fitting = [
                    other.name for other in chain.visible if other.dataType is not None and _is_text(other.dataType)
                ]
                raise ColumnError(
                    f"{self.uid}: the column {name!r} is {column.dataType.simpleString()}, but string or "
                    "array<string> is wanted. "
                    f"Columns that would fit: {listed(fitting)}"
                )
            field = StructField(output, ANNOTATIONS, metadata={"annotatorType": DOCUMENT})
            chain = chain.add(AssembleDocuments(self.getOrDefault("cleanupMode")), [column], field, self.uid)
        return chain

    def _pairs(self) -> list[tuple[str, str]]:
        inputs, outputs = self.getOrDefault("inputCols"), self.getOrDefault("outputCols")
        if inputs is None and outputs is None:
            return [(self.getOrDefault("inputCol"), self.getOrDefault("outputCol"))]
        if not inputs or not outputs or len(inputs) != len(outputs):
            raise ParamError(
                f"{self.uid}: inputCols={inputs!r} and outputCols={outputs!r} must be lists of equal length"
            )
        return list(zip(inputs, outputs, strict=True))


def _is_text(dtype: DataType) -> bool:
    return isinstance(dtype.elementType if isinstance(dtype, ArrayType) else dtype, StringType)


@dataclass(frozen=True)
class AssembleDocuments:
    """string or list<string> -> documents."""

    cleanup: str

    def __call__(self, *columns: pa.Array) -> pa.Array:
        rows, texts, indices = _flat_texts(columns[0])
        clean = CLEANUP[self.cleanup]
        if clean is not None:
            texts = pa.array([clean(text) for text in texts.to_pylist()], pa.string())
        filled = pc.greater(pc.utf8_length(texts), 0)
        texts, indices = texts.filter(filled), indices.filter(filled)
        lengths = np.bincount(rows[filled.to_numpy(zero_copy_only=False)], minlength=len(columns[0]))
        count = len(texts)
        kind, begin = pa.array([DOCUMENT] * count, pa.string()), pa.array(np.zeros(count, np.int32))
        end = pc.subtract(pc.utf8_length(texts), pa.scalar(1, pa.int32()))
        return assemble(lengths, kind, begin, end, texts, _sentence_maps(indices))


def _flat_texts(column: pa.Array) -> tuple[np.ndarray, pa.Array, pa.Array]:
    """Return the row, the text and the index within the row of every text that is not null."""
    if pa.types.is_list(column.type):
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
        texts = column.flatten().cast(pa.string())
        starts = np.concatenate([[0], np.cumsum(lengths)[:-1]]) if len(lengths) else np.zeros(0, np.int64)
        indices = np.arange(len(texts)) - np.repeat(starts, lengths)
    else:
        lengths, texts = np.ones(len(column), np.int64), column.cast(pa.string())
        indices = np.zeros(len(column), np.int64)
    valid = texts.is_valid()
    rows = np.repeat(np.arange(len(lengths)), lengths)[valid.to_numpy(zero_copy_only=False)]
    return rows, texts.filter(valid), pa.array(indices).filter(valid)


def _sentence_maps(indices: pa.Array) -> pa.MapArray:
    keys = pa.array(["sentence"] * len(indices), pa.string())
    return pa.MapArray.from_arrays(
        pa.array(np.arange(len(indices) + 1, dtype=np.int32)), keys, indices.cast(pa.string())
    )
