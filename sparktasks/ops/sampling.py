"""Which tokens may be drawn: filters on scores of shape ``(rows, vocabulary)``, as Hugging Face's generation defines
them.

Each sets the scores of what it leaves out to minus infinity, in place, and keeps at least ``keep`` tokens a row.
"""

from __future__ import annotations

import numpy as np

from sparktasks.ops.logits import log_softmax, softmax


def keep_top_k(scores: np.ndarray, k: int, keep: int = 1) -> None:
    """Keep the ``k`` best tokens, and what ties with the last of them.

    >>> scores = np.array([[1.0, 3.0, 2.0]])
    >>> keep_top_k(scores, 2)
    >>> scores.tolist()
    [[-inf, 3.0, 2.0]]
    """
    k = min(max(k, keep), scores.shape[-1])
    least = np.partition(scores, -k, axis=-1)[:, -k, None]
    scores[scores < least] = -np.inf


def keep_top_p(scores: np.ndarray, p: float, keep: int = 1) -> None:
    """Keep the best tokens whose probabilities first add up to ``p`` (nucleus sampling, arXiv:1904.09751)."""
    order = np.argsort(scores, axis=-1, kind="stable")
    cumulative = np.cumsum(softmax(np.take_along_axis(scores, order, -1)), axis=-1)
    _drop(scores, order, cumulative <= 1 - p, keep)


def keep_min_p(scores: np.ndarray, p: float, keep: int = 1) -> None:
    """Keep the tokens that are at least ``p`` times as probable as the best one (arXiv:2407.01082)."""
    probabilities = softmax(scores)
    order = np.argsort(scores, axis=-1, kind="stable")
    unlikely = probabilities < p * probabilities.max(axis=-1, keepdims=True)
    _drop(scores, order, np.take_along_axis(unlikely, order, -1), keep)


def keep_typical(scores: np.ndarray, mass: float, keep: int = 1) -> None:
    """Keep the tokens whose surprise is nearest to the expected one, until they add up to ``mass``
    (arXiv:2202.00666)."""
    logs = log_softmax(scores)
    probabilities = np.exp(logs)
    distance = np.abs(-logs - _entropy(logs, probabilities))
    order = np.argsort(distance, axis=-1, kind="stable")
    cumulative = np.cumsum(np.take_along_axis(probabilities, order, -1), axis=-1)
    last = np.minimum((cumulative < mass).sum(axis=-1, keepdims=True), scores.shape[-1] - 1)
    ordered = np.take_along_axis(distance, order, -1)
    _drop(scores, order[:, ::-1], (ordered > np.take_along_axis(ordered, last, -1))[:, ::-1], keep)


def keep_epsilon(scores: np.ndarray, epsilon: float, keep: int = 1) -> None:
    """Keep the tokens that are at least so probable (epsilon sampling, arXiv:2210.15191)."""
    _drop_below(scores, softmax(scores), epsilon, keep)


def keep_eta(scores: np.ndarray, epsilon: float, keep: int = 1) -> None:
    """Keep the tokens at least as probable as epsilon, or less where the model is unsure: sqrt(epsilon) exp(-entropy)
    (arXiv:2210.15191)."""
    logs = log_softmax(scores)
    probabilities = np.exp(logs)
    least = np.minimum(epsilon, np.sqrt(epsilon) * np.exp(-_entropy(logs, probabilities)))
    _drop_below(scores, probabilities, least, keep)


def _entropy(logs: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    return np.asarray(-(np.where(probabilities > 0, logs, 0) * probabilities).sum(axis=-1, keepdims=True))


def _drop_below(scores: np.ndarray, probabilities: np.ndarray, least: float | np.ndarray, keep: int) -> None:
    """Drop tokens that are less probable than that, but for the ``keep`` best ones."""
    keep = min(keep, scores.shape[-1])
    kept = np.partition(scores, -keep, axis=-1)[:, -keep, None]
    scores[(probabilities < least) & (scores < kept)] = -np.inf


def _drop(scores: np.ndarray, order: np.ndarray, dropped: np.ndarray, keep: int) -> None:
    """Drop tokens that are given in ascending order of worth, but for the last ``keep``."""
    dropped[:, -keep:] = False
    out = np.empty_like(dropped)
    np.put_along_axis(out, order, dropped, -1)
    scores[out] = -np.inf


def draw(scores: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Pick a token of each row: the one in whose part of the unit interval ``points`` (one a row) falls.

    >>> draw(np.log(np.array([[0.25, 0.75], [0.25, 0.75]])), np.array([0.2, 0.3])).tolist()
    [0, 1]
    """
    weights = np.exp((scores - scores.max(axis=-1, keepdims=True)).astype(np.float64))
    ends = np.cumsum(weights, axis=-1)
    places = np.minimum(
        points * ends[:, -1], np.nextafter(ends[:, -1], 0)
    )  # rounding must not lead behind the last token
    return np.asarray((ends <= places[:, None]).sum(axis=-1))
