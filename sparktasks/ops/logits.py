"""Scores from logits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def softmax(logits: np.ndarray) -> np.ndarray:
    """Normalise over the last axis: exp(x - max) / sum."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))


def log_parts(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what `log_softmax` takes off each row of ``(rows, n)``: its highest value, and log(sum(exp(x - highest)));
    both ``(rows, 1)``."""
    most, totals = logits.max(axis=-1), np.empty(len(logits), logits.dtype)
    row = np.empty(logits.shape[-1], logits.dtype)  # one row at a time stays in the processor's cache
    for place, values in enumerate(logits):
        np.subtract(values, most[place], out=row)
        np.exp(row, out=row)
        totals[place] = row.sum()
    return most[:, None], np.log(totals)[:, None]


def log_softmax(logits: np.ndarray, parts: tuple[np.ndarray, np.ndarray] | None = None) -> np.ndarray:
    """Turn logits ``(rows, n)`` into log-probabilities of each row; ``parts`` are what `log_parts` gives, where they
    are known."""
    most, totals = parts or log_parts(logits)
    found: np.ndarray = logits - most
    found -= totals
    return found


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Squash each value on its own: 1 / (1 + exp(-x))."""
    return np.asarray(1.0 / (1.0 + np.exp(-logits)))


def identity(logits: np.ndarray) -> np.ndarray:
    """Leave the values as they are: regression."""
    return logits


FUNCTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"softmax": softmax, "sigmoid": sigmoid, "none": identity}


def top(scores: np.ndarray, count: int | None) -> np.ndarray:
    """Return the indices of the highest scores in descending order; equal scores keep their order."""
    return np.argsort(-scores, kind="stable")[:count]


def highest(scores: np.ndarray, count: int) -> np.ndarray:
    """Return the places of the highest scores of each row ``(rows, n)``, best first, shape ``(rows, count)``; equal
    ones in order.

    Rows are cut into interleaved groups: the highest scores lie in the groups with the highest maxima, and the other
    groups are not looked at again.

    >>> highest(np.array([[1.0, 3.0, 2.0, 3.0]]), 3).tolist()
    [[1, 3, 2]]
    """
    rows, size = scores.shape
    groups = _GROUPS if size >= 8 * _GROUPS and count <= _GROUPS // 8 else 1
    if groups == 1:
        return _sorted_best(scores, np.broadcast_to(np.arange(size), scores.shape), count)
    deep = size // groups
    first, last = scores.strides
    grouped = np.lib.stride_tricks.as_strided(
        scores, (rows, deep, groups), (first, groups * last, last), writeable=False
    )
    chosen = np.argpartition(grouped.max(axis=1), groups - count, axis=1)[:, groups - count :]
    places = (np.arange(deep)[:, None] * groups + chosen[:, None, :]).reshape(rows, -1)
    rest = np.broadcast_to(np.arange(deep * groups, size), (rows, size - deep * groups))
    return _sorted_best(scores, np.concatenate([places, rest], axis=1), count)


_GROUPS = 1024


def _sorted_best(scores: np.ndarray, places: np.ndarray, count: int) -> np.ndarray:
    """Return those of some places of each row that have the highest scores."""
    values = np.take_along_axis(scores, places, 1)
    if count < values.shape[1]:
        some = np.argpartition(values, values.shape[1] - count, axis=1)[:, -count:]
        places = np.take_along_axis(places, some, 1)
    places = np.sort(places, axis=1)
    order = np.argsort(-np.take_along_axis(scores, places, 1), axis=1, kind="stable")
    return np.take_along_axis(places, order[:, :count], 1)
