"""Batches of unequal texts: duplicates once, similar lengths together, as many rows as a token budget allows."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T", bound=Hashable)

# What starting a run costs beside its tokens, in tokens: measured with BERT of 6 layers x 384 on a CPU.
RUN_COST = 16


def distinct(items: Sequence[T]) -> tuple[list[T], list[int]]:
    """Return the distinct items in order of first appearance, and for each item the place of its equal.

    >>> distinct(["b", "a", "b"])
    (['b', 'a'], [0, 1, 0])
    """
    places: dict[T, int] = {}
    inverse = [places.setdefault(item, len(places)) for item in items]
    return list(places), inverse


def token_batches(lengths: Sequence[int], budget: int) -> Iterator[np.ndarray]:
    """Yield the indices of each batch, longest texts first; rows x longest stays within ``budget`` (one row always
    fits).

    Of all such ways to cut the sorted texts, this is the cheapest: a run costs its padded tokens and `RUN_COST`.

    >>> [batch.tolist() for batch in token_batches([30, 90, 40, 30], budget=100)]
    [[1], [2], [0, 3]]
    """
    if len(lengths) == 1:  # what LocalPipeline gets most of the time
        yield np.zeros(1, np.int64)
        return
    # Sorted, so that texts of one batch lie side by side; a stable sort makes the same batches everywhere.
    order = np.argsort(np.negative(lengths), kind="stable")
    longest = np.maximum(1, np.asarray(lengths)[order])
    most = np.maximum(1, budget // longest)
    rest = np.zeros(len(order) + 1)  # the cost of the texts from here on
    rows = np.ones(len(order), np.int64)
    # From the end: what a batch leaves over has its cheapest cut by then.
    for start in reversed(range(len(order))):
        stop = min(start + most[start], len(order))
        costs = longest[start] * np.arange(1, stop - start + 1) + rest[start + 1 : stop + 1]
        rows[start] += costs.argmin()
        rest[start] = RUN_COST + costs.min()
    start = 0
    while start < len(order):
        yield order[start : start + rows[start]]
        start += rows[start]


def equal_batches(lengths: Sequence[int], budget: int, most_rows: int | None = None) -> Iterator[np.ndarray]:
    """Yield the indices of each batch of texts of one length, longest first; rows x length stays within ``budget``.

    ``most_rows`` is the number of rows that a batch may have instead, whatever their length.

    >>> [batch.tolist() for batch in equal_batches([30, 90, 30, 30], budget=60)]
    [[1], [0, 2], [3]]
    """
    values = np.asarray(lengths)
    for length in np.unique(values)[::-1]:
        places = np.flatnonzero(values == length)
        rows = most_rows
        if rows is None:
            rows = max(1, budget // max(1, int(length)))
        yield from np.split(places, range(rows, len(places), rows))


def pad(rows: Sequence[Sequence[int]], value: int, left: bool = False, width: int | None = None) -> np.ndarray:
    """Stack rows of unequal length, shape ``(rows, width)``, int64; without ``width`` as wide as the longest.

    >>> pad([[1, 2], [3]], value=0).tolist()
    [[1, 2], [3, 0]]
    """
    width = max(map(len, rows)) if width is None else width
    out = np.full((len(rows), width), value, np.int64)
    for target, row in zip(out, rows, strict=True):
        if left:
            target[width - len(row) :] = row
        else:
            target[: len(row)] = row
    return out


def unpad(stacked: np.ndarray, lengths: Sequence[int], left: bool = False) -> list[Any]:
    """Cut each row of ``(rows, longest, ...)`` back to its own length; the inverse of `pad`."""
    width = stacked.shape[1]
    if left:
        return [row[width - length :] for row, length in zip(stacked, lengths, strict=True)]
    return [row[:length] for row, length in zip(stacked, lengths, strict=True)]
