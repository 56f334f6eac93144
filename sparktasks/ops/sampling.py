"""Which tokens may be sampled: filters on scores of shape ``(rows, vocabulary)``, as Hugging Face's generation
defines them.

A filter sets the scores of the tokens that it drops to minus infinity, in place, and keeps at least ``keep`` tokens
per row.
"""

from __future__ import annotations

import numpy as np

from sparktasks.ops.logits import log_softmax, softmax


def keep_top_k(scores: np.ndarray, k: int, keep: int = 1) -> None:
    """Keep the ``k`` best tokens, and those that tie with the last of them.

    >>> scores = np.array([[1.0, 3.0, 2.0]])
    >>> keep_top_k(scores, 2)
    >>> scores.tolist()
    [[-inf, 3.0, 2.0]]
    """
    k = min(max(k, keep), scores.shape[-1])
    lowest = np.partition(scores, -k, axis=-1)[:, -k, None]
    scores[scores < lowest] = -np.inf


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
    """Keep the tokens whose surprise is nearest to the expected one, until their probabilities add up to ``mass``
    (arXiv:2202.00666)."""
    logs = log_softmax(scores)
    probabilities = np.exp(logs)
    distance = np.abs(-logs - _entropy(logs, probabilities))
    order = np.argsort(distance, axis=-1, kind="stable")
    cumulative = np.cumsum(np.take_along_axis(probabilities, order, -1), axis=-1)
    last = np.minimum((cumulative < mass).sum(axis=-1, keepdims=True), scores.shape[-1] - 1)
    ordered = np.take_along_axis(distance, order, -1)
    too_far = ordered > np.take_along_axis(ordered, last, -1)
    _drop(scores, order[:, ::-1], too_far[:, ::-1], keep)


def keep_epsilon(scores: np.ndarray, epsilon: float, keep: int = 1) -> None:
    """Keep the tokens whose probability is at least ``epsilon`` (epsilon sampling, arXiv:2210.15191)."""
    _drop_below(scores, softmax(scores), epsilon, keep)


def keep_eta(scores: np.ndarray, epsilon: float, keep: int = 1) -> None:
    """Keep the tokens at least as probable as epsilon, or less where the model is unsure: sqrt(epsilon) exp(-entropy)
    (arXiv:2210.15191)."""
    logs = log_softmax(scores)
    probabilities = np.exp(logs)
    lowest = np.minimum(epsilon, np.sqrt(epsilon) * np.exp(-_entropy(logs, probabilities)))
    _drop_below(scores, probabilities, lowest, keep)


def _entropy(logs: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    # A token of probability 0 adds nothing, but its logarithm is minus infinity and would make the product NaN.
    finite = np.where(probabilities > 0, logs, 0)
    return np.asarray(-(finite * probabilities).sum(axis=-1, keepdims=True))


def _drop_below(
    scores: np.ndarray,
    probabilities: np.ndarray,
    lowest: float | np.ndarray,
    keep: int,
) -> None:
    """Drop tokens less probable than ``lowest``, except the ``keep`` best."""
    keep = min(keep, scores.shape[-1])
    last_kept = np.partition(scores, -keep, axis=-1)[:, -keep, None]
    scores[(probabilities < lowest) & (scores < last_kept)] = -np.inf


def _drop(
    scores: np.ndarray,
    order: np.ndarray,
    dropped: np.ndarray,
    keep: int,
) -> None:
    """Drop the tokens marked in ``dropped``, whose columns are in ``order``, worst first, except the last ``keep``."""
    dropped[:, -keep:] = False
    in_place = np.empty_like(dropped)
    np.put_along_axis(in_place, order, dropped, -1)
    scores[in_place] = -np.inf


def sample(scores: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Sample a token of each row: the one in whose part of the unit interval the row's point falls.

    ``points`` has one value per row, from 0 to below 1.

    >>> sample(np.log(np.array([[0.25, 0.75], [0.25, 0.75]])), np.array([0.2, 0.3])).tolist()
    [0, 1]
    """
    weights = np.exp((scores - scores.max(axis=-1, keepdims=True)).astype(np.float64))
    ends = np.cumsum(weights, axis=-1)
    total = ends[:, -1]
    # Rounding must not lead behind the last token.
    places = np.minimum(points * total, np.nextafter(total, 0))
    return np.asarray((ends <= places[:, None]).sum(axis=-1))
