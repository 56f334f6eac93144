"""Offsets of columns that JVM annotators wrote: they count UTF-16 units, ours count code points.

The two part after the first character beyond the Basic Multilingual Plane (an emoji): one code point, two UTF-16 units.
A row is converted only where its document has such a character and its annotations are seen to count that way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from sparktasks.kernels.columns import Annotations

_FIRST_ASTRAL = "\U00010000"
_FOUR_BYTES = 0xF0  # the first byte of a character beyond the Basic Multilingual Plane, in UTF-8


def in_code_points(column: Annotations) -> tuple[list[int], list[int]]:
    """Return ``begin`` and ``end`` of a column's annotations, in code points."""
    begin = column.field("begin").to_pylist()
    end = column.field("end").to_pylist()
    documents = column if column.documents is None else column.documents
    if not has_astral(documents.field("result")):
        return begin, end
    stops = np.cumsum(column.lengths)
    document_stops = np.cumsum(documents.lengths)
    for row, stop in enumerate(stops.tolist()):
        places = range(stop - column.lengths[row], stop)
        document_places = range(document_stops[row] - documents.lengths[row], document_stops[row])
        if documents is column:
            _convert_documents(column, places, begin, end)
        else:
            _convert_within(column, places, documents, document_places, begin, end)
    return begin, end


def has_astral(texts: pa.Array) -> bool:
    """Tell whether some text holds a character beyond the Basic Multilingual Plane."""
    data = texts.buffers()[2]
    return data is not None and bool((np.frombuffer(data, np.uint8) >= _FOUR_BYTES).any())


def _astral(text: str | None) -> int:
    """Count the characters of a text that take two UTF-16 units."""
    return sum(character >= _FIRST_ASTRAL for character in text or "")


def _convert_documents(column: Annotations, places: Sequence[int], begin: list[int], end: list[int]) -> None:
    """Convert the documents (or sentences) of one row, whose own lengths tell how they were counted.

    What stands between sentences is taken to be white space, which has no character beyond the Plane.
    """
    extra = [_astral(column.result[place]) for place in places]
    lengths = [len(column.result[place] or "") for place in places]
    counted = [end[place] - begin[place] + 1 for place in places]
    in_units = [
        more > 0 and count == length + more for more, count, length in zip(extra, counted, lengths, strict=True)
    ]
    if not any(in_units):
        return
    before = 0
    for place, more in zip(places, extra, strict=True):
        begin[place] -= before
        before += more
        end[place] -= before


def _convert_within(
    column: Annotations,
    places: Sequence[int],
    documents: Annotations,
    document_places: Sequence[int],
    begin: list[int],
    end: list[int],
) -> None:
    """Convert one row's annotations, whose offsets index into the row's documents."""
    text = _row_text(documents, document_places)
    if not _astral(text):
        return
    # The code point at which each UTF-16 unit of the text stands.
    wide = np.array([1 + (character >= _FIRST_ASTRAL) for character in text])
    points = np.repeat(np.arange(len(text)), wide)
    words = [column.words[place] for place in places]
    spans = [(begin[place], end[place]) for place in places]
    by_units = [(_at(points, first), _at(points, last)) for first, last in spans]
    agree_points = _agreeing(text, spans, words)
    agree_units = _agreeing(text, by_units, words)
    beyond = any(last >= len(text) for _, last in spans)
    if agree_units > agree_points or (agree_units == agree_points and beyond):
        for place, (first, last) in zip(places, by_units, strict=True):
            begin[place], end[place] = first, last


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


def _agreeing(text: str, spans: Sequence[tuple[int, int]], words: Sequence[str | None]) -> int:
    """Count the annotations whose span holds the word that they were made of."""
    return sum(text[first : last + 1] == word for (first, last), word in zip(spans, words, strict=True))
