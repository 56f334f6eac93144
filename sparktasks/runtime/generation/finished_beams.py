"""The finished continuations of a beam search."""

from __future__ import annotations

import numpy as np

from sparktasks.ops.logits import highest
from sparktasks.runtime.generation.search import EOS, LENGTH, STOP, Generated

NEVER = np.float32(-1e9)  # the score of a row that does not exist, and of a token that is not allowed

# Why a continuation ends its text, by number.
REASONS = (LENGTH, EOS, STOP)


class FinishedBeams:
    """The best finished continuations of each text, shape ``(texts, beams)``; ``exists`` says which are there.

    ``tokens`` has the shape ``(texts, beams, longest)``, aligned to the right; ``counts`` says how many are a beam's.
    """

    _names = ("scores", "exists", "tokens", "counts", "reasons", "log_probabilities")

    def __init__(self, texts: int, beams: int) -> None:
        self.scores = np.full((texts, beams), NEVER, np.float32)
        self.exists = np.zeros((texts, beams), bool)
        self.tokens = np.zeros((texts, beams, 0), np.int64)
        self.counts = np.zeros((texts, beams), np.int64)
        self.reasons = np.zeros((texts, beams), np.int64)
        self.log_probabilities = np.zeros((texts, beams))

    def take(self, places: np.ndarray) -> FinishedBeams:
        """Return those of some of the texts."""
        taken = FinishedBeams(0, 0)
        for name in self._names:
            setattr(taken, name, getattr(self, name)[places])
        return taken

    def join(self, other: FinishedBeams) -> None:
        """Add the texts of another search after these."""
        for name, (mine, others) in self._pairs(other).items():
            setattr(self, name, np.concatenate([mine, others]))

    def offer(self, other: FinishedBeams) -> None:
        """Keep the best of these and others; of equal ones, those that were there before."""
        beams = self.scores.shape[1]
        best = highest(np.concatenate([self.scores, other.scores], axis=1), beams)
        texts = np.arange(len(best))[:, None]
        for name, (mine, others) in self._pairs(other).items():
            setattr(self, name, np.concatenate([mine, others], axis=1)[texts, best])

    def _pairs(self, other: FinishedBeams) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Return the arrays of both, by name; their tokens are as wide as the wider ones."""
        pairs = {name: (getattr(self, name), getattr(other, name)) for name in self._names}
        width = max(self.tokens.shape[2], other.tokens.shape[2])
        pairs["tokens"] = _widened(self.tokens, width), _widened(other.tokens, width)
        return pairs

    def results(self, text: int, count: int) -> list[Generated]:
        """Return the best ``count`` continuations of a text; there may be fewer."""
        results = []
        for beam in range(count):
            if not self.exists[text, beam]:
                break
            tokens = int(self.counts[text, beam])
            ids = self.tokens[text, beam, self.tokens.shape[2] - tokens :].tolist()
            score = float(self.log_probabilities[text, beam]) / max(1, tokens)
            results.append(Generated(ids, REASONS[self.reasons[text, beam]], score))
        return results


def _widened(tokens: np.ndarray, width: int) -> np.ndarray:
    """Make room at the left: tokens are aligned to the right."""
    return np.pad(tokens, ((0, 0), (0, 0), (width - tokens.shape[2], 0)))
