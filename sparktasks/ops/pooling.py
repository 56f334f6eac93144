"""Text vectors from token vectors, as sentence-transformers pools them (``models/Pooling.py``)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

POOLINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mean": lambda tokens: tokens.mean(axis=0, dtype=np.float32),
    "cls": lambda tokens: tokens[0],
    "max": lambda tokens: tokens.max(axis=0),
    "last": lambda tokens: tokens[-1],
}
"""Each maps token vectors ``(tokens, width)``, without padding, to ``(width,)``."""


def unit(vectors: np.ndarray) -> np.ndarray:
    """Scale vectors ``(..., width)`` to length one; a zero vector stays zero (as torch's ``normalize`` with eps 1e-12)."""
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12))
