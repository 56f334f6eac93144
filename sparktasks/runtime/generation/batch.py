"""The state of texts that are generated together: their tokens so far, and their key-value cache, right-aligned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sparktasks.runtime.generation.layout import Slot
from sparktasks.runtime.session import Tensor, tensor, view, writable

_SPARE_COLUMNS = 16  # by how much a history grows at least


class History:
    """Token ids of several rows, aligned to the right; ``lengths`` counts each row's own."""

    def __init__(self, ids: np.ndarray, lengths: np.ndarray) -> None:
        self._ids = ids
        self.lengths = lengths
        self.width: int = ids.shape[1]

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]]) -> History:
        """Align rows of unequal length."""
        lengths = np.array([len(row) for row in rows])
        ids = np.zeros((len(rows), lengths.max()), np.int64)
        for target, row in zip(ids, rows, strict=True):
            target[len(target) - len(row) :] = row
        return cls(ids, lengths)

    @property
    def ids(self) -> np.ndarray:
        """The tokens, shape ``(rows, width)``; zeros before the first of a row."""
        return self._ids[:, : self.width]

    @property
    def starts(self) -> np.ndarray:
        """The column of each row's first token."""
        return np.asarray(self.width - self.lengths)

    def mask(self) -> np.ndarray:
        """Return 1 for tokens and 0 for the columns before them, shape ``(rows, width)``, int64."""
        return (np.arange(self.width) >= self.starts[:, None]).astype(np.int64)

    def append(self, tokens: np.ndarray) -> None:
        """Add one token to each row."""
        if self.width == self._ids.shape[1]:
            spare = max(_SPARE_COLUMNS, self.width // 2)
            room = np.zeros_like(self._ids, shape=(len(self._ids), spare))
            self._ids = np.concatenate([self.ids, room], axis=1)
        self._ids[:, self.width] = tokens
        self.width += 1
        self.lengths = self.lengths + 1

    def row(self, row: int, count: int) -> list[int]:
        """Return the last ``count`` tokens of a row."""
        ids: list[int] = self._ids[row, self.width - count : self.width].tolist()
        return ids

    def reorder(self, rows: np.ndarray) -> None:
        """Let row ``i`` be what row ``rows[i]`` was."""
        self._ids = self._ids[rows]
        self.lengths = self.lengths[rows]

    def replace(self, row: int, other: History, other_row: int) -> None:
        """Overwrite a row by one of another history, which must not be longer than this history is wide."""
        length = int(other.lengths[other_row])
        start = self.width - length
        self._ids[row, :start] = 0
        self._ids[row, start : self.width] = other.row(other_row, length)
        self.lengths = self.lengths.copy()
        self.lengths[row] = length


@dataclass
class Batch:
    """Rows that a decoder runs together: tokens, cache, and what the encoder computed from each row's source."""

    history: History
    cache: list[Tensor]
    source: list[Tensor]

    def __len__(self) -> int:
        return len(self.history.lengths)

    @property
    def is_on_cpu(self) -> bool:
        """Whether the cache lies where this process can write."""
        return all(value.device_name() == "cpu" for value in self.cache)

    def reorder(self, slots: Sequence[Slot], rows: np.ndarray) -> None:
        """Let row ``i`` be what row ``rows[i]`` was, except for the source: those rows must share theirs."""
        if np.array_equal(rows, np.arange(len(self))):
            return
        self.history.reorder(rows)
        for place, slot in enumerate(slots):
            if not slot.is_cross:
                self.cache[place] = tensor(view(self.cache[place])[rows])

    def replace(
        self,
        slots: Sequence[Slot],
        rows: np.ndarray,
        other: Batch,
        other_rows: np.ndarray,
    ) -> None:
        """Overwrite rows by those of another batch, in a cache that lies on the CPU."""
        pairs = list(zip(rows.tolist(), other_rows.tolist(), strict=True))
        for row, other_row in pairs:
            self.history.replace(row, other.history, other_row)
        for place, slot in enumerate(slots):
            target = writable(self.cache[place])
            source = view(other.cache[place])
            width = min(target.shape[slot.columns], source.shape[slot.columns])
            axis = slot.columns - 1  # of a single row
            for row, other_row in pairs:
                target[row][...] = 0
                kept = _side(source[other_row], axis, width, slot.begins_left)
                _side(target[row], axis, width, slot.begins_left)[:] = kept


def merged(slots: Sequence[Slot], parts: Sequence[tuple[Batch, np.ndarray]]) -> Batch:
    """Copy some rows of several batches into a new batch, as wide as its longest row. Rows may be taken more than
    once."""
    ids = []
    lengths = []
    for batch, rows in parts:
        ids.append((batch.history.ids, rows))
        lengths.append(batch.history.lengths[rows])
    all_lengths = np.concatenate(lengths)
    width = int(all_lengths.max())
    history = History(_stacked(ids, axis=1, width=width), all_lengths)

    cache = []
    for place, slot in enumerate(slots):
        cache.append(_merged_cache(slot, place, parts, width))
    first, _ = parts[0]
    source = []
    for place in range(len(first.source)):
        values = [(view(batch.source[place]), rows) for batch, rows in parts]
        source.append(_padded(values, axis=1))
    return Batch(history, cache, source)


def _merged_cache(
    slot: Slot,
    place: int,
    parts: Sequence[tuple[Batch, np.ndarray]],
    width: int,
) -> Tensor:
    """Copy some rows of one tensor of several caches below each other, for a history of so many columns."""
    values = []
    widest = 0
    for batch, rows in parts:
        value = view(batch.cache[place])
        values.append((value, rows))
        used = value.shape[slot.columns]
        if not slot.begins_left:
            # The rows that needed the first columns of this cache are left behind.
            used -= batch.history.width - width
        widest = max(widest, used)
    if slot.is_cross:
        return _padded(values, slot.columns)
    if slot.begins_left:
        widest = min(widest, width)  # the other columns are room for tokens to come
    stacked = _stacked(values, slot.columns, widest, slot.begins_left)
    return tensor(stacked)


def _padded(values: Sequence[tuple[np.ndarray, np.ndarray]], axis: int) -> Tensor:
    """Copy some rows of several arrays below each other, aligned to the left along ``axis``."""
    widest = max(value.shape[axis] for value, _ in values)
    stacked = _stacked(values, axis, widest, begins_left=True)
    return tensor(stacked)


def _stacked(
    values: Sequence[tuple[np.ndarray, np.ndarray]],
    axis: int,
    width: int,
    begins_left: bool = False,
) -> np.ndarray:
    """Copy some rows of several arrays below each other, aligned to one side along ``axis``; an array that is too wide
    loses columns at its other side."""
    first, _ = values[0]
    shape = list(first.shape)
    shape[0] = sum(len(rows) for _, rows in values)
    shape[axis] = width
    stacked: np.ndarray = np.zeros(shape, first.dtype)
    begin = 0
    for value, rows in values:
        end = begin + len(rows)
        kept = min(value.shape[axis], width)
        target = _side(stacked[begin:end], axis, kept, begins_left)
        target[:] = _side(value, axis, kept, begins_left)[rows]
        begin = end
    return stacked


def _side(
    array: np.ndarray,
    axis: int,
    width: int,
    begins_left: bool,
) -> np.ndarray:
    """Return the first ``width`` columns of an array whose rows begin at the left, else the last, as a view."""
    if begins_left:
        return columns(array, axis, 0, width)
    size = array.shape[axis]
    return columns(array, axis, size - width, size)


def columns(
    array: np.ndarray,
    axis: int,
    begin: int,
    end: int,
) -> np.ndarray:
    """Return a part of an array along one axis, as a view."""
    return array[(slice(None),) * axis + (slice(begin, end),)]
