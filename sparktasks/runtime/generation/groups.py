"""Texts that are decoded together: how others join them, and how those that are finished leave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sparktasks.runtime.generation.batch import Batch, merged
from sparktasks.runtime.generation.layout import Slot
from sparktasks.runtime.generation.search import Search
from sparktasks.runtime.generation.waiting import Text

# New rows take the places of finished ones only if the batch stays nearly as narrow as its longest row: each step costs
# by the columns of the batch.
_TIGHT = 0.75


@dataclass
class Group:
    """Texts that are decoded together; each has ``search.width`` rows of the batch, in the order of the texts."""

    search: Search
    batch: Batch
    texts: list[Text]

    def rows(self, places: np.ndarray) -> np.ndarray:
        """Return the rows of the texts at some places."""
        width = self.search.width
        return (places[:, None] * width + np.arange(width)).ravel()

    def longest(self, places: np.ndarray) -> int:
        """Return the number of tokens of the longest of some texts; 0 if there are none."""
        return int(self.batch.history.lengths[self.rows(places)].max(initial=0))


Part = tuple[Group, np.ndarray]  # some texts of a group, by their places


def merge(slots: Sequence[Slot], parts: Sequence[Part]) -> Group | None:
    """Put texts of several groups into a new one, None if there are no texts; a group that stays whole and alone is
    returned as it is."""
    filled = [(group, places) for group, places in parts if len(places)]
    if not filled:
        return None
    first, first_places = filled[0]
    if len(filled) == 1 and len(first_places) == len(first.texts):
        return first
    search = first.search.take(first_places)
    texts: list[Text] = []
    rows: list[tuple[Batch, np.ndarray]] = []
    for group, places in filled:
        texts += [group.texts[place] for place in places]
        rows.append((group.batch, group.rows(places)))
        if group is not first:
            search.join(group.search.take(places))
    return Group(search, merged(slots, rows), texts)


def can_replace(
    group: Group,
    running: np.ndarray,
    parts: Sequence[Part],
    mixes_lengths: bool,
) -> bool:
    """Return whether texts of other groups can take the places of those that are finished, so that the cache of the
    running ones need not be copied."""
    if group.batch.source or not group.batch.is_on_cpu:
        return False
    joining = 0
    longest = group.longest(running)
    for other, places in parts:
        joining += len(places)
        longest = max(longest, other.longest(places))
    if joining != len(group.texts) - len(running):
        return False
    width = group.batch.history.width
    if mixes_lengths:
        return _TIGHT * width <= longest <= width
    return longest == width


def replace(
    slots: Sequence[Slot],
    group: Group,
    running: np.ndarray,
    parts: Sequence[Part],
) -> None:
    """Let texts of other groups take the places of those that are finished."""
    count = len(group.texts)
    order = np.arange(count)
    free = np.setdiff1d(order, running)
    for other, places in parts:
        targets, free = free[: len(places)], free[len(places) :]
        group.batch.replace(slots, group.rows(targets), other.batch, other.rows(places))
        for target, place in zip(targets, places, strict=True):
            group.texts[target] = other.texts[place]
        # A search takes others in behind its own texts only; `order` then brings them to their places.
        group.search.join(other.search.take(places))
        order[targets] = np.arange(count, count + len(places))
        count += len(places)
    group.search = group.search.take(order)
