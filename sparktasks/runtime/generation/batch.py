"""The state of texts that are generated together: their tokens so far, and their key-value cache, right-aligned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sparktasks.runtime.generation.layout import Slot
from sparktasks.runtime.session import Tensor, tensor, view, writable


class History:
    """Token ids of several rows, aligned to the right; ``lengths`` counts each row's own."""

    def __init__(self, ids: np.ndarray, lengths: np.ndarray) -> None:
        self._ids, self.lengths, self.width = ids, lengths, ids.shape[1]

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
        """Return 1 for tokens and 0 for what stands before them, shape ``(rows, width)``, int64."""
        return (np.arange(self.width) >= self.starts[:, None]).astype(np.int64)

    def append(self, tokens: np.ndarray) -> None:
        """Add one token to each row."""
        if self.width == self._ids.shape[1]:
            self._ids = np.concatenate(
                [self.ids, np.zeros_like(self._ids, shape=(len(self._ids), max(16, self.width // 2)))], axis=1
            )
        self._ids[:, self.width] = tokens
        self.width += 1
        self.lengths = self.lengths + 1

    def row(self, index: int, last: int) -> list[int]:
        """Return the last tokens of a row."""
        found: list[int] = self._ids[index, self.width - last : self.width].tolist()
        return found

    def reorder(self, rows: np.ndarray) -> None:
        """Let row ``i`` be what row ``rows[i]`` was."""
        self._ids, self.lengths = self._ids[rows], self.lengths[rows]

    def put(self, row: int, other: History, taken: int) -> None:
        """Let a row be that of another history; it must not be longer than this one is wide."""
        length = int(other.lengths[taken])
        self._ids[row, : self.width - length] = 0
        self._ids[row, self.width - length : self.width] = other.row(taken, length)
        self.lengths = self.lengths.copy()
        self.lengths[row] = length


@dataclass
class Batch:
    """Rows that a decoder runs together: tokens, cache, and what the encoder made of each row's source."""

    history: History
    cache: list[Tensor]
    source: list[Tensor]

    def __len__(self) -> int:
        return len(self.history.lengths)

    @property
    def on_cpu(self) -> bool:
        """Tell whether the cache lies where this process can write."""
        return all(value.device_name() == "cpu" for value in self.cache)

    def reorder(self, slots: Sequence[Slot], rows: np.ndarray) -> None:
        """Let row ``i`` be what row ``rows[i]`` was, in all but the source: those rows must share theirs."""
        if np.array_equal(rows, np.arange(len(self))):
            return
        self.history.reorder(rows)
        self.cache = [
            value if slot.is_cross else tensor(view(value)[rows]) for slot, value in zip(slots, self.cache, strict=True)
        ]

    def put(self, slots: Sequence[Slot], rows: np.ndarray, other: Batch, taken: np.ndarray) -> None:
        """Let rows be those of another batch: they take the places of others in the cache, which lies on the CPU."""
        for row, place in zip(rows.tolist(), taken.tolist(), strict=True):
            self.history.put(row, other.history, place)
        for slot, value, source in zip(slots, self.cache, other.cache, strict=True):
            here, there = writable(value), view(source)
            axis, width = slot.columns - 1, min(here.shape[slot.columns], there.shape[slot.columns])
            for row, place in zip(rows.tolist(), taken.tolist(), strict=True):
                _replace(here[row], there[place], axis, width, slot.begins_left)


def _replace(row: np.ndarray, other: np.ndarray, axis: int, width: int, begins_left: bool) -> None:
    """Overwrite a row of the cache by the last (or the first) columns of another one, and the rest by zeros."""
    row[...] = 0
    _at_side(row, axis, width, begins_left)[:] = _at_side(other, axis, width, begins_left)


def merged(slots: Sequence[Slot], parts: Sequence[tuple[Batch, np.ndarray]]) -> Batch:
    """Take rows of several batches into a new one, as wide as its longest row. Rows may be taken more than once."""
    histories = [part.history for part, _ in parts]
    lengths = np.concatenate([part.history.lengths[rows] for part, rows in parts])
    width = int(lengths.max())
    ids = _stacked([(history.ids, rows) for history, (_, rows) in zip(histories, parts, strict=True)], 1, width)
    behind = [part.history.width - width for part, _ in parts]  # how many columns of each part's cache nobody needs
    cache = [
        _joined([(part.cache[place], rows) for part, rows in parts], slot, behind, width)
        for place, slot in enumerate(slots if parts[0][0].cache else ())
    ]
    source = [_padded([(part.source[place], rows) for part, rows in parts]) for place in range(len(parts[0][0].source))]
    return Batch(History(ids, lengths), cache, source)


def _joined(parts: list[tuple[Tensor, np.ndarray]], slot: Slot, behind: list[int], most: int) -> Tensor:
    if slot.is_cross:
        return _padded(parts, slot.columns)
    views = [(view(value), rows) for value, rows in parts]
    widths = [value.shape[slot.columns] for value, _ in views]
    width = (
        min(most, max(widths))
        if slot.begins_left
        else max(each - cut for each, cut in zip(widths, behind, strict=True))
    )
    return tensor(_stacked(views, slot.columns, width, slot.begins_left))


def _padded(parts: list[tuple[Tensor, np.ndarray]], axis: int = 1) -> Tensor:
    """Copy rows of several tensors below each other, aligned to the left along ``axis``."""
    views = [(view(value), rows) for value, rows in parts]
    return tensor(_stacked(views, axis, max(value.shape[axis] for value, _ in views), begins_left=True))


def _stacked(
    parts: Sequence[tuple[np.ndarray, np.ndarray]], axis: int, width: int, begins_left: bool = False
) -> np.ndarray:
    """Copy rows of several arrays below each other, aligned to one side along ``axis``; what is too wide loses its
    other side."""
    shape = list(parts[0][0].shape)
    shape[0], shape[axis] = sum(len(rows) for _, rows in parts), width
    out: np.ndarray = np.zeros(shape, parts[0][0].dtype)
    row = 0
    for value, rows in parts:
        kept = min(value.shape[axis], width)
        _at_side(out[row : row + len(rows)], axis, kept, begins_left)[:] = _at_side(value, axis, kept, begins_left)[
            rows
        ]
        row += len(rows)
    return out


def _at_side(array: np.ndarray, axis: int, width: int, begins_left: bool) -> np.ndarray:
    """Return the first, or the last, columns of an array, as a view."""
    return (
        columns(array, axis, 0, width)
        if begins_left
        else columns(array, axis, array.shape[axis] - width, array.shape[axis])
    )


def columns(array: np.ndarray, axis: int, begin: int, end: int) -> np.ndarray:
    """Return a part of an array along one axis, as a view."""
    return array[(slice(None),) * axis + (slice(begin, end),)]
