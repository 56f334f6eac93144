"""Offsets of columns that JVM annotators wrote: they count UTF-16 units, ours count code points.

The two part after the first character beyond the Basic Multilingual Plane (an emoji): one code point, two UTF-16 units.
A row is converted only where its document has such a character and its annotations are seen to count that way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from sparktasks.kernels.columns import Annotations

_Span = tuple[int, int]

_FIRST_ASTRAL = 0x10000  # the first code point beyond the Basic Multilingual Plane
_FOUR_BYTES = 0xF0  # the first byte of a character beyond the Basic Multilingual Plane, in UTF-8


def in_code_points(column: Annotations) -> tuple[list[int], list[int]]:
    """Return ``begin`` and ``end`` of a column's annotations, in code points."""
    begin = column.field("begin").to_pylist()
    end = column.field("end").to_pylist()
    # Without documents, the column itself may be one of documents; its own lengths must tell.
    documents = column if column.documents is None else column.documents
    # Nearly all columns end here.
    if not has_astral(documents.field("result")):
        return begin, end
    rows = zip(_places(column), _places(documents), strict=True)
    for places, document_places in rows:
        if documents is column:
            _convert_documents(column, places, begin, end)
        else:
            text = _row_text(documents, document_places)
            _convert_within(column, places, text, begin, end)
    return begin, end


def _places(column: Annotations) -> Iterator[range]:
    """Yield the places of each row's annotations."""
    start = 0
    for length in column.lengths.tolist():
        yield range(start, start + length)
        start += length


def has_astral(texts: pa.Array) -> bool:
    """Tell whether some text holds a character beyond the Basic Multilingual Plane."""
    data = texts.buffers()[2]
    return data is not None and bool((np.frombuffer(data, np.uint8) >= _FOUR_BYTES).any())


def _is_astral(text: str) -> np.ndarray:
    """Tell which characters of a text take two UTF-16 units, bool, shape ``(characters,)``."""
    return np.frombuffer(text.encode("utf-32-le"), np.uint32) >= _FIRST_ASTRAL


def _convert_documents(column: Annotations, places: Sequence[int], begin: list[int], end: list[int]) -> None:
    """Convert the documents (or sentences) of one row, whose own lengths tell how they were counted.

    What stands between sentences is taken to be white space, which has no character beyond the Plane.
    """
    texts = [column.result[place] or "" for place in places]
    lengths = [end[place] - begin[place] + 1 for place in places]
    if not any(map(_counts_units, texts, lengths)):
        return
    # Units beyond the code points, so far in the row.
    extra = 0
    for place, text in zip(places, texts, strict=True):
        begin[place] -= extra
        extra += int(_is_astral(text).sum())
        end[place] -= extra


def _counts_units(text: str, length: int) -> bool:
    """Tell whether this is the length of a text in UTF-16 units, and not in code points."""
    units = len(text) + int(_is_astral(text).sum())
    return length == units and length != len(text)


def _convert_within(
    column: Annotations,
    places: Sequence[int],
    text: str,
    begin: list[int],
    end: list[int],
) -> None:
    """Convert one row's annotations, whose offsets index into this text."""
    astral = _is_astral(text)
    if not astral.any():
        return
    # The code point at which each UTF-16 unit of the text stands.
    points = np.repeat(np.arange(len(text)), 1 + astral)
    spans = [(begin[place], end[place]) for place in places]
    converted = [(_at(points, first), _at(points, last)) for first, last in spans]
    words = [column.words[place] for place in places]
    if not _fits_better(text, converted, spans, words):
        return
    for place, (first, last) in zip(places, converted, strict=True):
        begin[place] = first
        end[place] = last


def _fits_better(text: str, converted: Sequence[_Span], spans: Sequence[_Span], words: Sequence[str | None]) -> bool:
    """Tell whether the spans hold their words once they are converted, rather than as they are."""
    as_units = _agreeing(text, converted, words)
    as_points = _agreeing(text, spans, words)
    if as_units != as_points:
        return as_units > as_points
    # Words that were changed (stems, lemmas) agree with neither; only units run on beyond the text.
    return any(last >= len(text) for _, last in spans)


def _row_text(documents: Annotations, places: Sequence[int]) -> str:
    """Return the text that a row's documents stand in; what lies between sentences is filled with spaces."""
    text = ""
    for place in places:
        text = text.ljust(documents.begin[place]) + (documents.result[place] or "")
    return text


def _at(points: np.ndarray, unit: int) -> int:
    """Return the code point at a UTF-16 unit; beyond the text, units and code points run on in step."""
    if unit < len(points):
        return int(points[unit])
    return int(points[-1]) + 1 + unit - len(points)


def _agreeing(text: str, spans: Sequence[_Span], words: Sequence[str | None]) -> int:
    """Count the annotations whose span holds the word that they were made of."""
    return sum(text[first : last + 1] == word for (first, last), word in zip(spans, words, strict=True))
