"""Arithmetic on logits: against its definition."""

from __future__ import annotations

import numpy as np
import pytest

from sparktasks.ops.logits import highest, log_parts, log_softmax


@pytest.mark.parametrize("size", [1, 7, 1024, 8191, 8192, 9001, 58_101])
@pytest.mark.parametrize("count", [1, 8, 200])
def test_the_highest_are_those_of_a_stable_sort(size: int, count: int) -> None:
    scores = np.random.default_rng(size).standard_normal((5, size)).astype(np.float32)
    assert np.array_equal(highest(scores, count), np.argsort(-scores, axis=1, kind="stable")[:, :count])


@pytest.mark.parametrize("size", [50, 20_000])
def test_equal_scores_keep_their_order(size: int) -> None:
    scores = np.full((2, size), -np.inf, np.float32)
    scores[:, [3, 11, size // 2, size - 1]] = [[2.0, 5.0, 5.0, 5.0], [5.0, 2.0, 2.0, 2.0]]
    assert highest(scores, 4).tolist() == [[11, size // 2, size - 1, 3], [3, 11, size // 2, size - 1]]


def test_rows_of_a_larger_array_are_read_where_they_are() -> None:
    scores = np.random.default_rng(0).standard_normal((4, 3, 10_000)).astype(np.float32)
    assert np.array_equal(highest(scores[:, -1], 5), np.argsort(-scores[:, -1], axis=1)[:, :5])


def test_log_softmax_of_extreme_logits() -> None:
    logits = np.array([[0.0, 1000.0], [-1000.0, -1000.0], [-np.inf, 3.0]], np.float32)
    assert np.allclose(log_softmax(logits), [[-1000.0, 0.0], [-np.log(2), -np.log(2)], [-np.inf, 0.0]])


def test_a_row_with_nan_is_told_from_others() -> None:
    logits = np.array([[0.0, np.nan, 1.0], [0.0, 2.0, 1.0]], np.float32)
    assert np.isnan(log_parts(logits)[1][:, 0]).tolist() == [True, False]
