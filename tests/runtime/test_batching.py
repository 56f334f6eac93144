"""Batches of unequal texts."""

from __future__ import annotations

import numpy as np
import pytest

from sparktasks.runtime.batching import pad, token_batches, unpad


@pytest.mark.parametrize("budget", [1, 7, 64, 10_000])
def test_batches_hold_every_row_once_within_the_budget(budget: int) -> None:
    lengths = [int(value) for value in np.random.default_rng(0).integers(1, 40, 200)]
    batches = list(token_batches(lengths, budget))
    assert sorted(index for batch in batches for index in batch) == list(range(200))
    assert all(len(batch) == 1 or len(batch) * max(lengths[index] for index in batch) <= budget for batch in batches)
    assert max(map(len, batches)) == max(1, min(200, budget // min(lengths))) or budget > 40


@pytest.mark.parametrize("left", [True, False])
def test_unpad_undoes_pad(left: bool) -> None:
    rows = [[1, 2, 3], [4], [5, 6]]
    padded = pad(rows, 9, left)
    assert padded.shape == (3, 3)
    assert (padded == 9).sum() == 3
    assert [row.tolist() for row in unpad(padded, [3, 1, 2], left)] == rows
