"""Tokens on the executor: texts are cut by a regular expression, with no Python object for each token but its word."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import compress

import numpy as np
import pyarrow as pa

from sparktasks.errors import DataError
from sparktasks.kernels.arrow import strings
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
        separator = self.pattern.separator(is_matched=self.gaps)
        if separator is not None:
            return write_errors(TOKEN, source, self._cut_together(source, separator), {}, self.fails)
        column, faults = self._cut_apart(source)
        return write_errors(TOKEN, source, column, faults, self.fails)

    def _cut_together(self, source: Annotations, separator: str) -> pa.ListArray:
        """Cut all texts in one go, with a character between them that no token holds."""
        texts = ["" if text is None else text for text in source.result]
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        pieces = self.pattern.cutter()(separator.join(texts))
        starts = np.cumsum(lengths + 1) - lengths - 1
        return self._written(source, pieces, np.zeros(1, np.int64), starts)

    def _cut_apart(self, source: Annotations) -> tuple[pa.ListArray, dict[int, str]]:
        """Cut text by text; returns the tokens, and what is wrong with texts by their place."""
        cut = self.pattern.cutter()
        pieces: list[str] = []
        firsts = np.zeros(len(source), np.int64)
        starts = np.zeros(len(source), np.int64)
        start = 0
        faults: dict[int, str] = {}
        for index, text in enumerate(source.result):
            firsts[index], starts[index] = len(pieces), start
            if text:
                try:
                    pieces += cut(text)
                    start += len(text)
                except DataError as error:
                    faults[index] = f"DataError: {error}"
        return self._written(source, pieces, firsts, starts), faults

    def _written(
        self,
        source: Annotations,
        pieces: list[str],
        firsts: np.ndarray,
        starts: np.ndarray,
    ) -> pa.ListArray:
        """Write the tokens among the pieces of all texts.

        ``firsts`` are the places of pieces that stand before a first match: from there on every second one is a match.
        ``starts`` is where each text begins among all pieces, in characters.
        """
        lengths = np.fromiter(map(len, pieces), np.int64, len(pieces))
        ends = np.cumsum(lengths)
        kept = (self._are_matches(len(pieces), firsts) != self.gaps) & (lengths >= max(1, self.shortest))
        if self.longest is not None:
            kept &= lengths <= self.longest
        words = strings(list(compress(pieces, kept.tolist())), lengths[kept])
        if self.lower:
            words = lower_cased(words)
        begins = (ends - lengths)[kept]
        # Of several texts that begin at one place all but the last are empty: it is the one that has the token.
        parents = np.searchsorted(starts, begins, side="right") - 1
        begins -= starts[parents]
        return write_spans(TOKEN, source, parents, begins, begins + lengths[kept], words)

    @staticmethod
    def _are_matches(count: int, firsts: np.ndarray) -> np.ndarray:
        """Tell which pieces are matches, bool, shape ``(count,)``."""
        places = np.arange(count)
        if len(firsts) > 1:
            places -= np.repeat(firsts, np.diff(np.append(firsts, count)))
        are_matches: np.ndarray = places % 2 == 1
        return are_matches


def lower_cased(words: pa.Array) -> pa.Array:
    """Lower-case words as Python does, once per distinct word."""
    encoded = words.dictionary_encode()
    lowered = [word.lower() for word in encoded.dictionary.to_pylist()]
    return strings(lowered).take(encoded.indices)
