"""Batches of unequal texts."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest

from sparktasks.runtime.batching import RUN_COST, pad, token_batches, unpad


@pytest.mark.parametrize("budget", [1, 7, 64, 10_000])
def test_batches_hold_every_row_once_within_the_budget(budget: int) -> None:
    lengths = [int(value) for value in np.random.default_rng(0).integers(1, 40, 200)]
    batches = list(token_batches(lengths, budget))
    assert sorted(index for batch in batches for index in batch) == list(range(200))
    assert all(len(batch) == 1 or len(batch) * max(lengths[index] for index in batch) <= budget for batch in batches)


def test_batches_are_the_cheapest_cut_of_the_sorted_texts() -> None:
    for seed in range(20):
        lengths = np.random.default_rng(seed).integers(1, 60, 9).tolist()
        assert _cost(lengths, list(token_batches(lengths, budget=100))) == min(
            _cost(lengths, cut) for cut in _cuts(lengths, budget=100)
        )


def _cost(lengths: list[int], batches: list[np.ndarray]) -> int:
    return sum(RUN_COST + len(batch) * max(lengths[index] for index in batch) for batch in batches)


def _cuts(lengths: list[int], budget: int) -> Iterator[list[np.ndarray]]:
    """Give every way to cut the texts, longest first, into batches within the budget."""
    order = np.argsort(np.negative(lengths), kind="stable")
    for ends in product([False, True], repeat=len(order) - 1):
        batches = np.split(order, [place + 1 for place, end in enumerate(ends) if end])
        if all(len(batch) == 1 or len(batch) * lengths[batch[0]] <= budget for batch in batches):
            yield batches


@pytest.mark.parametrize("left", [True, False])
def test_unpad_undoes_pad(left: bool) -> None:
    rows = [[1, 2, 3], [4], [5, 6]]
    padded = pad(rows, 9, left)
    assert padded.shape == (3, 3)
    assert (padded == 9).sum() == 3
    assert [row.tolist() for row in unpad(padded, [3, 1, 2], left)] == rows
