"""Assemblers on the executor: plain columns become annotation columns."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sparktasks.errors import ColumnError
from sparktasks.kernels.arrow import booleans, lengths_of, numbers, repeated, strings, to_numpy
from sparktasks.kernels.columns import DOCUMENT, TOKEN, Annotation, assemble, build, single_maps

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


@dataclass(frozen=True)
class AssembleDocuments:
    """string or list<string> -> documents."""

    cleanup: str

    def __call__(self, *columns: pa.Array) -> pa.Array:
        rows, texts, indices = _flat_texts(columns[0])
        clean = CLEANUP[self.cleanup]
        if clean is not None:
            texts = strings([clean(text) for text in texts.to_pylist()])
        sizes = to_numpy(pc.utf8_length(texts))
        filled = sizes > 0
        texts = texts.filter(booleans(filled))
        lengths = np.bincount(rows[filled], minlength=len(columns[0]))
        count = len(texts)
        begin = numbers(np.zeros(count), pa.int32())
        end = numbers(sizes[filled] - 1, pa.int32())
        metadata = single_maps("sentence", numbers(indices[filled], pa.int64()).cast(pa.string()))
        return assemble(lengths, repeated(DOCUMENT, count), begin, end, texts, metadata)


def _flat_texts(column: pa.Array) -> tuple[np.ndarray, pa.Array, np.ndarray]:
    """Return the row, the text and the index within the row of every text that is not null."""
    if pa.types.is_list(column.type):
        lengths = lengths_of(column)
        texts = column.flatten().cast(pa.string())
        starts = np.cumsum(lengths) - lengths
        indices = np.arange(len(texts)) - np.repeat(starts, lengths)
    else:
        lengths = np.ones(len(column), np.int64)
        texts = column.cast(pa.string())
        indices = np.zeros(len(column), np.int64)
    valid = to_numpy(texts.is_valid())
    rows = np.repeat(np.arange(len(lengths)), lengths)
    return rows[valid], texts.drop_null(), indices[valid]


@dataclass(frozen=True)
class AssembleWords:
    """list<string> -> the document the words make, or the tokens in it."""

    kind: str

    def __call__(self, *columns: pa.Array) -> pa.Array:
        if pa.types.is_string(columns[0].type):
            raise ColumnError("WordsAssembler: lists of words are expected, not strings")
        rows = []
        for words in columns[0].to_pylist():
            filled = [word for word in words or () if word]
            rows.append(_document(filled) if self.kind == DOCUMENT else _tokens(filled))
        return build(rows)


def _document(words: Sequence[str]) -> list[Annotation]:
    text = " ".join(words)
    return [Annotation(DOCUMENT, 0, len(text) - 1, text, {"sentence": "0"})] if text else []


def _tokens(words: Sequence[str]) -> list[Annotation]:
    tokens = []
    begin = 0
    for word in words:
        tokens.append(Annotation(TOKEN, begin, begin + len(word) - 1, word, {"sentence": "0"}))
        begin += len(word) + 1
    return tokens
