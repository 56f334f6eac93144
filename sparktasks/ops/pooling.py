"""Text vectors from token vectors, as sentence-transformers computes them (its modules Pooling, Dense and
LayerNorm)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

_LAYER_NORM_EPSILON = 1e-5  # torch's default


def _weighted_mean(tokens: np.ndarray, first: int) -> np.ndarray:
    """Weigh each token by its place in the text, counted from 1: later ones of a decoder have seen more."""
    weights = np.arange(first + 1, first + 1 + len(tokens), dtype=np.float32)[:, None]
    return np.asarray((tokens * weights).sum(axis=0) / weights.sum())


POOLINGS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "mean": lambda tokens, first: tokens.mean(axis=0),
    "cls": lambda tokens, first: tokens[0],
    "max": lambda tokens, first: tokens.max(axis=0),
    "last": lambda tokens, first: tokens[-1],
    "mean_sqrt_len": lambda tokens, first: tokens.sum(axis=0) / np.sqrt(np.float32(len(tokens))),
    "weightedmean": _weighted_mean,
}
"""Each maps float32 token vectors ``(tokens, width)``, without padding, to ``(width,)``; the first token's place comes
along."""


def pool(tokens: np.ndarray, modes: Sequence[str], first: int = 0) -> np.ndarray:
    """Pool token vectors ``(tokens, width)`` from place ``first`` on, and join the vectors of several modes.

    >>> pool(np.array([[1.0, 2.0], [3.0, 4.0]]), ["mean", "cls"]).tolist()
    [2.0, 3.0, 1.0, 2.0]
    """
    kept = tokens[first:].astype(np.float32)
    return np.concatenate([POOLINGS[mode](kept, first) for mode in modes])


def unit(vectors: np.ndarray) -> np.ndarray:
    """Scale vectors ``(..., width)`` to length one, in float32; a zero vector stays zero (as torch's ``normalize``, eps
    1e-12)."""
    wide = np.asarray(vectors, np.float32)  # squares of float16 overflow
    return np.asarray(wide / np.maximum(np.linalg.norm(wide, axis=-1, keepdims=True), np.float32(1e-12)))


def layer_norm(vector: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Scale a vector ``(width,)`` to mean 0 and variance 1, then by learnt weights (arXiv:1607.06450)."""
    centred = vector - vector.mean()
    return np.asarray(centred / np.sqrt((centred**2).mean() + _LAYER_NORM_EPSILON) * weight + bias)


def _gelu(vector: np.ndarray) -> np.ndarray:
    erf = np.array([math.erf(value / math.sqrt(2)) for value in vector.tolist()], np.float32)
    return np.asarray(0.5 * vector * (1 + erf))


ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "Identity": lambda vector: vector,
    "Tanh": np.tanh,
    "ReLU": lambda vector: np.maximum(vector, 0),
    "Sigmoid": lambda vector: np.asarray(1 / (1 + np.exp(-vector))),
    "GELU": _gelu,
}
"""Functions of a Dense module, by torch's names; each maps ``(width,)`` to ``(width,)``."""
