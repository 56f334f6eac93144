"""Annotation columns: one definition gives the Spark type, the Arrow type, the reader and the builder.

A text-like column is an array of `ANNOTATION` structs. The first six fields are, in this order, those of Spark NLP;
``score`` is ours and null where it has no meaning. ``begin`` and ``end`` count code points of the row's document,
``end`` is inclusive: ``document[begin : end + 1] == result`` wherever an annotator writes source text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql.pandas.types import to_arrow_type
from pyspark.sql.types import ArrayType, DataType, FloatType, IntegerType, MapType, StringType, StructField, StructType

from sparktasks.errors import ColumnError

DOCUMENT = "document"
TOKEN = "token"
CHUNK = "chunk"
NAMED_ENTITY = "named_entity"
CATEGORY = "category"
POS = "pos"
SENTENCE_EMBEDDINGS = "sentence_embeddings"
WORD_EMBEDDINGS = "word_embeddings"

ANNOTATION = StructType(
    [
        StructField("annotatorType", StringType()),
        StructField("begin", IntegerType()),
        StructField("end", IntegerType()),
        StructField("result", StringType()),
        StructField("metadata", MapType(StringType(), StringType())),
        StructField("embeddings", ArrayType(FloatType())),
        StructField("score", FloatType()),
    ]
)
ANNOTATIONS = ArrayType(ANNOTATION)
REQUIRED_FIELDS = frozenset(ANNOTATION.names) - {"score"}
_ARROW_COLUMN: pa.ListType = to_arrow_type(ANNOTATIONS)
_ARROW: pa.StructType = _ARROW_COLUMN.value_type


class Annotation(NamedTuple):
    """One annotation: what was found (``result``), where (``begin``, inclusive ``end``), and how sure (``score``)."""

    annotatorType: str
    begin: int
    end: int
    result: str | None
    metadata: dict[str, str]
    embeddings: np.ndarray | None = None
    score: float | None = None

    @property
    def error(self) -> str | None:
        """Say why there is no result: ``<Type>: <message>``, or None where there is one."""
        return None if self.result is not None else self.metadata.get("error", "Unknown: no result and no reason")


def is_annotations(dtype: DataType) -> bool:
    """Tell whether a Spark type has the shape of an annotation column; ``score`` may be missing."""
    return (
        isinstance(dtype, ArrayType)
        and isinstance(dtype.elementType, StructType)
        and set(dtype.elementType.names) >= REQUIRED_FIELDS
    )


class Annotations:
    """An annotation column laid flat: one entry per annotation, ``lengths`` says how many belong to each row."""

    def __init__(self, column: pa.Array) -> None:
        if not (pa.types.is_list(column.type) and pa.types.is_struct(column.type.value_type)):
            raise ColumnError(
                f"an annotation column is wanted, not {column.type}: begin the pipeline with an assembler"
            )
        self.lengths: np.ndarray = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
        self._values: pa.StructArray = column.flatten()

    def __len__(self) -> int:
        return len(self._values)

    def _field(self, name: str) -> pa.Array:
        return pc.struct_field(self._values, name)

    def _list(self, name: str) -> list[Any]:
        found: list[Any] = self._field(name).to_pylist()
        return found

    @cached_property
    def rows(self) -> np.ndarray:
        """The row of each annotation, shape ``(annotations,)``."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)

    @cached_property
    def begin(self) -> list[int]:
        """Code-point offset of each annotation's first character."""
        return self._list("begin")

    @cached_property
    def end(self) -> list[int]:
        """Code-point offset of each annotation's last character."""
        return self._list("end")

    @cached_property
    def result(self) -> list[str | None]:
        """The text of each annotation; None marks an error."""
        return self._list("result")

    @cached_property
    def sentence(self) -> list[str | None]:
        """The index of the sentence (or document) each annotation belongs to, as written in its metadata."""
        return self.metadata_value("sentence")

    def metadata_value(self, key: str) -> list[str | None]:
        """Return one metadata entry of each annotation."""
        found: list[str | None] = pc.map_lookup(self._field("metadata"), pa.scalar(key), "first").to_pylist()
        return found

    def offsets(self) -> pa.Array:
        """Where each row's annotations start, int32, shape ``(rows + 1,)``."""
        return _offsets(self.lengths)

    def values(self, name: str, kind: pa.DataType) -> pa.Array:
        """Return one field of all annotations as an Arrow array; ``error`` is taken from the metadata."""
        if name == "error":
            return pc.map_lookup(self._field("metadata"), pa.scalar("error"), "first")
        return self._field(name).cast(kind) if name in self.names() else pa.nulls(len(self), kind)

    def names(self) -> list[str]:
        """Return the struct's field names; columns written by others may lack ``score``."""
        return [field.name for field in self._values.type]

    def __iter__(self) -> Iterator[Annotation]:
        names = self.names()
        fields = [self._list(name) if name in names else [None] * len(self) for name in ANNOTATION.names]
        for kind, begin, end, result, metadata, vector, score in zip(*fields, strict=True):
            yield Annotation(
                kind,
                begin,
                end,
                result,
                dict(metadata or ()),
                None if vector is None else np.array(vector, np.float32),
                score,
            )

    def by_row(self) -> list[list[Annotation]]:
        """Return the annotations as one list per row."""
        return split(list(self), self.lengths)


def split(items: list[Any], lengths: Iterable[int]) -> list[list[Any]]:
    """Cut a flat list into consecutive pieces of the given lengths."""
    flat = iter(items)
    return [[next(flat) for _ in range(length)] for length in lengths]


def build(rows: Sequence[Sequence[Annotation]]) -> pa.ListArray:
    """Make an annotation column from one sequence of annotations per row."""
    flat = list(chain.from_iterable(rows))
    kind, begin, end, result, metadata, vectors, score = zip(*flat, strict=True) if flat else ((),) * 7
    return assemble([len(row) for row in rows], kind, begin, end, result, _maps(metadata), _vectors(vectors), score)


def assemble(
    lengths: Sequence[int] | np.ndarray,
    kind: Any,
    begin: Any,
    end: Any,
    result: Any,
    metadata: Any = None,
    embeddings: Any = None,
    score: Any = None,
) -> pa.ListArray:
    """Make an annotation column from flat fields (Arrow arrays or sequences); None leaves a whole field null."""
    fields = []
    for field, values in zip(_ARROW, (kind, begin, end, result, metadata, embeddings, score), strict=True):
        if values is None:
            fields.append(pa.nulls(len(begin), field.type))
        elif isinstance(values, pa.Array):
            fields.append(values if values.type == field.type else values.cast(field.type))
        else:
            fields.append(pa.array(values, field.type))
    struct = pa.StructArray.from_arrays(fields, fields=list(_ARROW))
    return pa.ListArray.from_arrays(_offsets(lengths), struct, type=_ARROW_COLUMN)


def _offsets(lengths: Sequence[int] | np.ndarray) -> pa.Array:
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    if offsets[-1] > np.iinfo(np.int32).max:
        raise OverflowError(
            f"{offsets[-1]:,} values do not fit into one Arrow list; texts this long must be split first"
        )
    return pa.array(offsets.astype(np.int32))


def _maps(metadata: Sequence[dict[str, str]]) -> pa.MapArray:
    keys = list(chain.from_iterable(metadata))
    values = [value for entry in metadata for value in entry.values()]
    return pa.MapArray.from_arrays(
        _offsets([len(entry) for entry in metadata]), pa.array(keys, pa.string()), pa.array(values, pa.string())
    )


def _vectors(vectors: Sequence[np.ndarray | None]) -> pa.ListArray | None:
    present = [vector for vector in vectors if vector is not None]
    if not present:
        return None
    offsets = _offsets([0 if vector is None else len(vector) for vector in vectors])
    mask = pa.array([vector is None for vector in vectors])
    return pa.ListArray.from_arrays(offsets, pa.array(np.concatenate(present), pa.float32()), mask=mask)
