"""Scores from logits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def softmax(logits: np.ndarray) -> np.ndarray:
    """Normalise over the last axis: exp(x - max) / sum."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))


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
