"""Annotation columns: the kinds there are, how each is read, and how text columns are built.

Every annotation column is an array of structs, one struct per annotation. Which struct depends on the annotator type
(`KINDS`): texts and what is found in them (`TEXT`), pictures (`IMAGE`), sound (`AUDIO`). Spark types are derived from
the Arrow types here.

The first six fields of `TEXT` are, in this order, those of Spark NLP; ``score`` is ours and null where it has no
meaning. ``begin`` and ``end`` count code points of the row's document, ``end`` is inclusive:
``document[begin : end + 1] == result`` wherever an annotator writes source text. Absent ``embeddings`` are ``[]`` and
absent ``metadata`` is ``{}``: Spark NLP's readers call a method on both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sparktasks.errors import ColumnError
from sparktasks.kernels.arrow import lengths_of, numbers, offsets_of, optional_numbers, repeated, strings, to_numpy
from sparktasks.kernels.offsets import in_code_points

DOCUMENT = "document"
TOKEN = "token"
CHUNK = "chunk"
NAMED_ENTITY = "named_entity"
CATEGORY = "category"
POS = "pos"
SENTENCE_EMBEDDINGS = "sentence_embeddings"
WORD_EMBEDDINGS = "word_embeddings"
TABLE_TYPE = "table"
IMAGE_TYPE = "image"
AUDIO_TYPE = "audio"

STRINGS = pa.map_(pa.string(), pa.string())


@dataclass(frozen=True)
class Kind:
    """A shape of annotation columns: the struct of one annotation, and the fields a column of this kind cannot lack."""

    name: str
    struct: pa.StructType
    required: frozenset[str]

    @property
    def column(self) -> pa.ListType:
        """The Arrow type of a column."""
        return pa.list_(self.struct)

    def fits(self, names: Iterable[str]) -> bool:
        """Tell whether a struct with fields of these names is of this kind."""
        return self.required <= set(names)


TEXT = Kind(
    "text",
    pa.struct(
        [
            ("annotatorType", pa.string()),
            ("begin", pa.int32()),
            ("end", pa.int32()),
            ("result", pa.string()),
            ("metadata", STRINGS),
            ("embeddings", pa.list_(pa.float32())),
            ("score", pa.float32()),
        ]
    ),
    frozenset({"annotatorType", "begin", "end", "result", "metadata", "embeddings"}),
)

# Spark's own image fields, and the annotator's: mode -1 means that result is an encoded file (JPEG, PNG, ...), not
# pixels, and a null result with an origin that the file is still to be opened there.
IMAGE = Kind(
    "image",
    pa.struct(
        [
            ("annotatorType", pa.string()),
            ("origin", pa.string()),
            ("height", pa.int32()),
            ("width", pa.int32()),
            ("nChannels", pa.int32()),
            ("mode", pa.int32()),
            ("result", pa.binary()),
            ("metadata", STRINGS),
        ]
    ),
    frozenset({"annotatorType", "origin", "height", "width", "nChannels", "mode", "result"}),
)

# sampleRate 0 means that result is an encoded file (WAV, FLAC, ...), above 0 that it is float32 PCM, little-endian.
AUDIO = Kind(
    "audio",
    pa.struct(
        [
            ("annotatorType", pa.string()),
            ("origin", pa.string()),
            ("sampleRate", pa.int32()),
            ("nChannels", pa.int32()),
            ("result", pa.binary()),
            ("metadata", STRINGS),
        ]
    ),
    frozenset({"annotatorType", "origin", "sampleRate", "nChannels", "result"}),
)

KINDS: dict[str, Kind] = {
    DOCUMENT: TEXT,
    TOKEN: TEXT,
    CHUNK: TEXT,
    NAMED_ENTITY: TEXT,
    CATEGORY: TEXT,
    POS: TEXT,
    "date": TEXT,
    "language": TEXT,
    "dependency": TEXT,
    SENTENCE_EMBEDDINGS: TEXT,
    WORD_EMBEDDINGS: TEXT,
    TABLE_TYPE: TEXT,
    IMAGE_TYPE: IMAGE,
    AUDIO_TYPE: AUDIO,
}
"""The kind of each annotator type."""


def kind_of(column: pa.DataType) -> Kind | None:
    """Return the kind of an Arrow type; None where it is not an annotation column's."""
    if not (pa.types.is_list(column) and pa.types.is_struct(column.value_type)):
        return None
    names = [field.name for field in column.value_type]
    return next((kind for kind in (TEXT, IMAGE, AUDIO) if kind.fits(names)), None)


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


class FlatColumn:
    """An annotation column of any kind laid flat: one entry per annotation; ``lengths`` tells how many each row has."""

    def __init__(self, column: pa.Array) -> None:
        if not (pa.types.is_list(column.type) and pa.types.is_struct(column.type.value_type)):
            raise ColumnError(
                f"an annotation column is expected, not {column.type}: begin the pipeline with an assembler"
            )
        self.lengths: np.ndarray = lengths_of(column)
        self.structs: pa.StructArray = column.flatten()

    def __len__(self) -> int:
        return len(self.structs)

    @cached_property
    def names(self) -> list[str]:
        """The struct's field names; columns that others wrote may lack some."""
        return [field.name for field in self.structs.type]

    @cached_property
    def rows(self) -> np.ndarray:
        """The row of each annotation, shape ``(annotations,)``."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)

    @property
    def offsets(self) -> pa.Array:
        """Where each row's annotations start, int32, shape ``(rows + 1,)``."""
        return offsets_of(self.lengths)

    @property
    def faults(self) -> np.ndarray:
        """Tell which annotations stand for an error, bool, shape ``(annotations,)``.

        A text annotation without a result is one. An image or a clip may be without one because its file is still to
        be opened: there the metadata tell.
        """
        if TEXT.fits(self.names):
            return to_numpy(self.field("result").is_null())
        return to_numpy(self.metadata_field("error").is_valid())

    def field(self, name: str) -> pa.Array:
        """Return one field of all annotations."""
        return pc.struct_field(self.structs, name)

    def values(self, name: str, dtype: pa.DataType) -> pa.Array:
        """Return one field of all annotations as an Arrow array; ``error`` is read from the metadata."""
        if name == "error":
            return self.metadata_field("error")
        return self.field(name).cast(dtype) if name in self.names else pa.nulls(len(self), dtype)

    def metadata_field(self, key: str) -> pa.Array:
        """Return one metadata entry of each annotation; null where it has none."""
        if "metadata" not in self.names:
            return pa.nulls(len(self), pa.string())
        return pc.map_lookup(self.field("metadata"), strings([key])[0], "first")

    def metadata_value(self, key: str) -> list[str | None]:
        """Return one metadata entry of each annotation, as Python strings."""
        found: list[str | None] = self.metadata_field(key).to_pylist()
        return found


class Annotations(FlatColumn):
    """A text column laid flat. Offsets are code points, also where the column was written by the JVM.

    ``documents`` is the column that the offsets index into, where the caller has it: without it, offsets that a JVM
    annotator counted in UTF-16 units are told by the lengths of the results alone.
    """

    def __init__(self, column: pa.Array, documents: Annotations | None = None) -> None:
        super().__init__(column)
        if "begin" not in self.names:
            raise ColumnError(f"a text column is expected, not {column.type}")
        self.documents = documents

    @cached_property
    def begin(self) -> list[int]:
        """Code-point offset of each annotation's first character."""
        return self._spans[0]

    @cached_property
    def end(self) -> list[int]:
        """Code-point offset of each annotation's last character."""
        return self._spans[1]

    @cached_property
    def _spans(self) -> tuple[list[int], list[int]]:
        return in_code_points(self)

    @cached_property
    def result(self) -> list[str | None]:
        """The text of each annotation; None marks an error."""
        texts: list[str | None] = self.field("result").to_pylist()
        return texts

    @cached_property
    def sentence(self) -> list[str | None]:
        """The index of the sentence (or document) each annotation belongs to, as written in its metadata."""
        return self.metadata_value("sentence")

    @cached_property
    def words(self) -> list[str | None]:
        """The source text of each annotation: of labels the word they stand for, else the result."""
        return [word or text for word, text in zip(self.metadata_value("word"), self.result, strict=True)]

    def __iter__(self) -> Iterator[Annotation]:
        kinds = self.field("annotatorType").to_pylist()
        metadata = self.field("metadata").to_pylist()
        vectors = self.field("embeddings").to_pylist()
        scores = self.values("score", pa.float32()).to_pylist()
        fields = zip(kinds, self.begin, self.end, self.result, metadata, vectors, scores, strict=True)
        for kind, begin, end, result, entries, vector, score in fields:
            embedding = np.array(vector, np.float32) if vector else None
            yield Annotation(kind, begin, end, result, dict(entries or ()), embedding, score)

    def by_row(self) -> list[list[Annotation]]:
        """Return the annotations as one list per row."""
        return split(list(self), self.lengths)


def split(items: list[Any], lengths: Iterable[int]) -> list[list[Any]]:
    """Cut a flat list into consecutive pieces of the given lengths."""
    pieces = []
    start = 0
    for length in lengths:
        pieces.append(items[start : start + length])
        start += length
    return pieces


# -- building text columns


def build(rows: Sequence[Sequence[Annotation]]) -> pa.ListArray:
    """Make a text column from one sequence of annotations per row."""
    flat = list(chain.from_iterable(rows))
    columns = zip(*flat, strict=True) if flat else ((),) * 7
    kind, begin, end, result, metadata, vectors, score = columns
    return assemble(
        [len(row) for row in rows],
        strings(kind),
        numbers(begin, pa.int32()),
        numbers(end, pa.int32()),
        strings(result),
        maps_of(metadata),
        vectors_of(vectors),
        optional_numbers(score, pa.float32()),
    )


def assemble(  # noqa: PLR0913  (one for each field)
    lengths: Sequence[int] | np.ndarray,
    kind: pa.Array,
    begin: pa.Array,
    end: pa.Array,
    result: pa.Array,
    metadata: pa.Array | None = None,
    embeddings: pa.Array | None = None,
    score: pa.Array | None = None,
) -> pa.ListArray:
    """Make a text column from flat fields; None leaves metadata and embeddings empty and scores null."""
    count = len(begin)
    arrays = (
        kind,
        begin,
        end,
        result,
        maps_of([{}] * count) if metadata is None else metadata,
        _no_vectors(count) if embeddings is None else embeddings,
        pa.nulls(count, pa.float32()) if score is None else score,
    )
    fields = []
    for field, array in zip(TEXT.struct, arrays, strict=True):
        fields.append(array if array.type == field.type else array.cast(field.type))
    struct = pa.StructArray.from_arrays(fields, fields=list(TEXT.struct))
    return pa.ListArray.from_arrays(offsets_of(lengths), struct, type=TEXT.column)


def maps_of(metadata: Sequence[dict[str, str]]) -> pa.MapArray:
    """Make a map array from one dict per annotation."""
    keys: list[str] = []
    values: list[str] = []
    for entries in metadata:
        keys.extend(entries)
        values.extend(entries.values())
    lengths = np.fromiter(map(len, metadata), np.int64, len(metadata))
    return pa.MapArray.from_arrays(offsets_of(lengths), strings(keys), strings(values))


def single_maps(key: str, values: pa.Array) -> pa.MapArray:
    """Make maps of one entry each, ``{key: value}``; where the value is null, the map is empty."""
    lengths = np.ones(len(values), np.int64)
    if values.null_count:
        lengths = to_numpy(values.is_valid())
        values = values.drop_null()
    return pa.MapArray.from_arrays(offsets_of(lengths), repeated(key, len(values)), values)


def vectors_of(vectors: Sequence[np.ndarray | None]) -> pa.ListArray:
    """Make the embeddings field from one vector per annotation; None becomes an empty list."""
    present = [vector for vector in vectors if vector is not None]
    lengths = [0 if vector is None else len(vector) for vector in vectors]
    values = np.concatenate(present) if present else np.zeros(0, np.float32)
    return pa.ListArray.from_arrays(offsets_of(lengths), numbers(values, pa.float32()))


def _no_vectors(count: int) -> pa.ListArray:
    """Return so many empty vectors."""
    return pa.ListArray.from_arrays(offsets_of(np.zeros(count, np.int64)), numbers([], pa.float32()))
