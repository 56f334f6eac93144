"""Tokens on the executor: texts are cut by a regular expression, with no Python object for each token but its word."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sparktasks.errors import DataError
from sparktasks.kernels.arrow import numbers, strings, to_numpy
from sparktasks.kernels.columns import TOKEN, Annotations
from sparktasks.kernels.writers import write_errors, write_spans
from sparktasks.ops.patterns import Pattern


@dataclass(frozen=True, kw_only=True)
class FindTokens:
    """documents -> tokens."""

    pattern: Pattern
    gaps: bool
    lower: bool
    shortest: int
    longest: int | None
    fails: bool

    def __call__(self, *columns: pa.Array) -> pa.Array:
        source = Annotations(columns[0])
        pieces: list[str] = []
        counts = np.zeros(len(source), np.int64)
        faults: dict[int, str] = {}
        for index, text in enumerate(source.result):
            if not text:
                continue
            try:
                parts = self.pattern.parts(text)
            except DataError as error:
                faults[index] = f"DataError: {error}"
                continue
            pieces += parts
            counts[index] = len(parts)
        return write_errors(TOKEN, source, self._written(source, pieces, counts), faults, self.fails)

    def _written(self, source: Annotations, pieces: list[str], counts: np.ndarray) -> pa.ListArray:
        """Write the tokens among the pieces of all texts, of which text ``index`` has ``counts[index]``."""
        texts = strings(pieces)
        lengths = to_numpy(pc.utf8_length(texts))
        parents = np.repeat(np.arange(len(counts)), counts)
        # Offsets within all texts joined, less where each text begins there.
        stops = np.cumsum(lengths, dtype=np.int64)
        first_pieces = np.cumsum(counts) - counts
        begins = stops - lengths
        text_begins = np.zeros(len(counts), np.int64)
        filled = counts > 0
        text_begins[filled] = begins[first_pieces[filled]]
        begins -= text_begins[parents]
        # Of each text's pieces every second one is a match: the first is what stands before the first match.
        is_match = (np.arange(len(pieces)) - first_pieces[parents]) % 2 == 1
        kept = (is_match != self.gaps) & (lengths >= max(1, self.shortest))
        if self.longest is not None:
            kept &= lengths <= self.longest
        places = np.flatnonzero(kept)
        words = texts.take(numbers(places, pa.int64()))
        if self.lower:
            words = lower_cased(words)
        ends = begins + lengths
        return write_spans(TOKEN, source, parents[places], begins[places], ends[places], words)


def lower_cased(words: pa.Array) -> pa.Array:
    """Lower-case words as Python does, once per distinct word."""
    encoded = words.dictionary_encode()
    lowered = [word.lower() for word in encoded.dictionary.to_pylist()]
    return strings(lowered).take(encoded.indices)
