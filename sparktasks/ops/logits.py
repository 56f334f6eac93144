"""Scores from logits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

# `highest` cuts long rows into this many interleaved groups.
_GROUPS = 1024


def softmax(logits: np.ndarray) -> np.ndarray:
    """Normalise over the last axis: exp(x - max) / sum."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))


def log_parts(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what `log_softmax` subtracts from each row of ``(rows, n)``: its maximum, and log(sum(exp(x - maximum)));
    both ``(rows, 1)``."""
    maxima = logits.max(axis=-1)
    sums = np.empty(len(logits), logits.dtype)
    # One row at a time stays in the processor's cache; the whole array would be written to memory twice.
    shifted = np.empty(logits.shape[-1], logits.dtype)
    for row, values in enumerate(logits):
        np.subtract(values, maxima[row], out=shifted)
        np.exp(shifted, out=shifted)
        sums[row] = shifted.sum()
    return maxima[:, None], np.log(sums)[:, None]


def log_softmax(logits: np.ndarray, parts: tuple[np.ndarray, np.ndarray] | None = None) -> np.ndarray:
    """Turn logits ``(rows, n)`` into log-probabilities of each row; ``parts`` is the result of `log_parts`, if it is
    known."""
    maxima, log_sums = parts or log_parts(logits)
    result: np.ndarray = logits - maxima
    result -= log_sums
    return result


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
    """Return the columns of the highest scores of each row ``(rows, n)``, best first, shape ``(rows, count)``; equal
    scores keep their order.

    Rows are cut into interleaved groups: the highest scores lie in the groups with the highest maxima, and the other
    groups are not looked at again.

    >>> highest(np.array([[1.0, 3.0, 2.0, 3.0]]), 3).tolist()
    [[1, 3, 2]]
    """
    rows, size = scores.shape
    if size < 8 * _GROUPS or count > _GROUPS // 8:  # grouping would cost more than it saves
        every_column = np.broadcast_to(np.arange(size), scores.shape)
        return _best_of(scores, every_column, count)

    # Group g holds the columns g, g + _GROUPS, g + 2 * _GROUPS, ...: a view of the scores, without a copy.
    depth = size // _GROUPS
    row_stride, column_stride = scores.strides
    grouped = np.lib.stride_tricks.as_strided(
        scores,
        shape=(rows, depth, _GROUPS),
        strides=(row_stride, _GROUPS * column_stride, column_stride),
        writeable=False,
    )
    best_groups = np.argpartition(grouped.max(axis=1), _GROUPS - count, axis=1)[:, _GROUPS - count :]
    grouped_columns = np.arange(depth)[:, None] * _GROUPS + best_groups[:, None, :]

    # The last few columns fill no whole depth, so they belong to no group.
    rest = np.arange(depth * _GROUPS, size)
    columns = np.concatenate(
        [grouped_columns.reshape(rows, -1), np.broadcast_to(rest, (rows, len(rest)))],
        axis=1,
    )
    return _best_of(scores, columns, count)


def _best_of(scores: np.ndarray, columns: np.ndarray, count: int) -> np.ndarray:
    """Return, of some columns of each row, those that have the highest scores, best first."""
    values = np.take_along_axis(scores, columns, 1)
    if count < values.shape[1]:
        best = np.argpartition(values, values.shape[1] - count, axis=1)[:, -count:]
        columns = np.take_along_axis(columns, best, 1)
    columns = np.sort(columns, axis=1)  # so that the stable sort below keeps equal scores in order
    order = np.argsort(-np.take_along_axis(scores, columns, 1), axis=1, kind="stable")
    return np.take_along_axis(columns, order[:, :count], 1)
