"""The measures by which a bundle could fail a parity test: networks whose answers would hide a mistake are refused."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Ids = tuple[int, ...]
Mistakes = dict[str, list[tuple[np.ndarray, np.ndarray]]]  # right and wrong answers, by the name of the mistake

# Of scores and vectors; gaps are medians over the inputs.
MOST_SHARE = 0.75
LEAST_MARGIN = 0.05
LEAST_GAP = 100 * 1e-4  # a hundred times what the parity tests tolerate

# Of generated texts; shares are of the prompts.
LEAST_TOKENS = 8
LEAST_LENGTHS = 6
LEAST_ENDED, MOST_ENDED = 0.1, 0.9
MOST_REPEATED = 0.02
LEAST_CHANGED = 0.5
CLOSE = 1e-3  # two logits whose order float noise might change
MOST_CLOSE = 0.01


class WeakBundle(ValueError):
    """A bundle that could not show a mistake, or whose graphs do not answer as its network does."""


@dataclass(frozen=True)
class Measure:
    """One figure of a bundle, and the limits between which it must lie."""

    name: str
    value: float
    least: float = -math.inf
    most: float = math.inf

    @property
    def passes(self) -> bool:
        """Tell whether the value is within its limits; nan never is."""
        return self.least <= self.value <= self.most

    def __str__(self) -> str:
        figure = f"{self.name} {self.value:.3g}"
        if self.value < self.least:
            return f"{figure}, less than {self.least:.3g}"
        return figure if self.passes else f"{figure}, not at most {self.most:.3g}"


@dataclass(frozen=True)
class Texts:
    """The new tokens of prompts by the prompts' numbers, and by how much the best token led at each step."""

    ids: dict[int, Ids]
    leads: np.ndarray


def score_measures(answers: Sequence[np.ndarray], mistakes: Mistakes, distinct: int, ranked: bool) -> list[Measure]:
    """Measure answers that are scores or vectors, each (rows, labels) or (rows, size).

    `distinct` is the least number of different top labels, or of different rounded rows where labels are not `ranked`.
    """
    rows = np.concatenate(answers)
    kinds, margins = top_labels(rows) if ranked else rounded_rows(rows)
    _, counts = np.unique(kinds, return_counts=True, axis=0)
    return [
        Measure("distinct answers", len(counts), least=distinct),
        Measure("share of the most frequent", float(counts.max() / counts.sum()), most=MOST_SHARE),
        Measure("margin", float(np.median(margins)), least=LEAST_MARGIN),
        *(Measure(name, median_gap(pairs), least=LEAST_GAP) for name, pairs in mistakes.items()),
    ]


def top_labels(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the top label of every row and its lead over the second."""
    ordered = np.sort(rows, axis=-1)
    return rows.argmax(-1), ordered[:, -1] - ordered[:, -2]


def rounded_rows(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rounded rows and each one's distance to the nearest other; all distances where rows are numbers."""
    distances = np.linalg.norm(rows[:, None] - rows[None], axis=-1)
    itself = np.eye(len(rows), dtype=bool)
    if rows.shape[1] == 1:
        return rows.round(1), distances[~itself]
    return rows.round(1), np.where(itself, np.inf, distances).min(axis=1)


def median_gap(pairs: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """Return the median over the inputs of the largest difference between right and wrong answers."""
    return float(np.median([np.abs(right - wrong).max() for right, wrong in pairs]))


def relative_difference(output: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest difference of a graph's output, as a share of the largest value that is expected, or of 1."""
    return float(np.abs(output - expected).max() / max(1.0, np.abs(expected).max()))


def text_measures(texts: Texts, mistakes: dict[str, list[tuple[Texts, Texts]]], most_tokens: int) -> list[Measure]:
    """Measure generated texts of up to `most_tokens` new tokens."""
    answers = list(texts.ids.values())
    times = Counter(answers)
    repeated = sum(times[ids] > 1 for ids in answers)
    ended = sum(len(ids) < most_tokens for ids in answers)
    return [
        Measure("distinct tokens", len(set().union(*answers)), least=LEAST_TOKENS),
        Measure("distinct lengths", len({len(ids) for ids in answers}), least=LEAST_LENGTHS),
        Measure("share of texts that end", ended / len(answers), least=LEAST_ENDED, most=MOST_ENDED),
        Measure("share of texts not alone", repeated / len(answers), most=MOST_REPEATED),
        Measure("share of close steps", float((texts.leads < CLOSE).mean()), most=MOST_CLOSE),
        *(Measure(name, changed_share(pairs), least=LEAST_CHANGED) for name, pairs in mistakes.items()),
    ]


def changed_share(pairs: list[tuple[Texts, Texts]]) -> float:
    """Return the share of the wrong texts that differ from the right ones of the same prompts."""
    changes = [right.ids[number] != ids for right, wrong in pairs for number, ids in wrong.ids.items()]
    return sum(changes) / len(changes)
