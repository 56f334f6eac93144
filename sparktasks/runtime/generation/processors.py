"""What changes the scores of the next token: Hugging Face's logits processors, on whole batches, in its order.

Each takes the tokens so far and scores of shape ``(rows, vocabulary)``, and changes the scores in place.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sparktasks.runtime.generation.batch import History
from sparktasks.runtime.generation.settings import Bias, Settings


@dataclass(frozen=True)
class Progress:
    """Where each row stands: its tokens, how many of them are ``new``, and how many may be; ``first`` is a row's forced
    first token, or -1.

    ``given`` are the tokens that the model was given to read: the encoder's, or where there is none, the prompt.
    """

    history: History
    new: np.ndarray
    limits: np.ndarray
    first: np.ndarray
    given: Sequence[tuple[int, ...]]

    @property
    def prompts(self) -> np.ndarray:
        """The length of each row's prompt."""
        return np.asarray(self.history.lengths - self.new)


class Processor(ABC):
    """Changes the scores of rows' next tokens in place."""

    def rows(self, progress: Progress) -> np.ndarray:
        """Return the places of the rows that it changes now: all, unless it says otherwise."""
        return np.arange(len(progress.new))

    @abstractmethod
    def __call__(self, progress: Progress, scores: np.ndarray) -> None:
        """Change scores of shape ``(rows, vocabulary)``."""


@dataclass(frozen=True)
class BiasSequences(Processor):
    """Adds to the score of the token that would complete a sequence."""

    biases: tuple[Bias, ...]

    def __call__(self, progress: Progress, scores: np.ndarray) -> None:
        history, last = progress.history, dict.fromkeys(ids[-1] for ids, _ in self.biases)
        places = {token: place for place, token in enumerate(last)}
        total = np.zeros((len(scores), len(places)), scores.dtype)
        for ids, bias in self.biases:
            rows = history.lengths >= (len(ids) if len(ids) > 1 else 0)
            before = np.array(ids[:-1], np.int64)
            if len(before) > history.width:
                continue
            rows = rows & (history.ids[:, history.width - len(before) :] == before).all(axis=1)
            total[rows, places[ids[-1]]] += bias
        scores[:, list(places)] += total


@dataclass(frozen=True)
class PenaliseRepetition(Processor):
    """Divides positive scores of tokens that a row has, and multiplies negative ones (arXiv:1909.05858)."""

    penalty: float

    def __call__(self, progress: Progress, scores: np.ndarray) -> None:
        rows, columns = np.nonzero(progress.history.mask())
        ids = progress.history.ids[rows, columns]
        found = scores[rows, ids]
        scores[rows, ids] = np.where(found < 0, found * self.penalty, found / self.penalty)


@dataclass(frozen=True)
class FavourGiven(Processor):
    """Makes tokens of what was given to read more likely, the inverse of `PenaliseRepetition`."""

    penalty: float

    def __call__(self, progress: Progress, scores: np.ndarray) -> None:
        for row, given in enumerate(progress.given):
            ids = np.array(given)
            found = scores[row, ids]
            scores[row, ids] = np.where(found < 0, found / self.penalty, found * self.penalty)


@dataclass(frozen=True)
class ForbidRepeatedNGrams(Processor):
    """Forbids the token that would make an n-gram appear twice in a row's tokens."""

    size: int

    def __call__(self, progress: Progress, scores: np.ndarray) -> None:
        history, size = progress.history, self.size
        if history.width < size:
            return
        grams = np.lib.stride_tricks.sliding_window_view(history.ids, size, axis=1)
        last = history.ids[:, history.width - size + 1 :]
        same = (grams[..., :-1] == last[:, None]).all(axis=-1) & (np.arange(grams.shape[1]) >= history.starts[:, None])
        rows, columns = np.nonzero(same)
        scores[rows, grams[rows, columns, -1]] = -np.inf


@dataclass(frozen=True)
class ForbidGivenNGrams(Processor):
    """Forbids the token that would complete an n-gram of what was given to read."""

    size: int

    def __call__(self, progress: Progress, scores: np.ndarray) -> None:
        size, history = self.size, progress.history
        for row, given in enumerate(progress.given):
            if len(given) < size or history.lengths[row] < size - 1:
                continue
            grams = np.lib.stride_tricks.sliding_window_view(np.array(given), size)
            same = (grams[:, :-1] == np.array(history.row(row, size - 1), np.int64)).all(axis=1)
            scores[row, grams[same, -1]] = -np.inf


@dataclass(frozen=True)
class PressToEnd(Processor):
    """Makes the end tokens likelier with every token after the first ``start`` new ones."""

    ids: tuple[int, ...]
    start: int
    factor: float

    def rows(self, progress: Progress) -> np.ndarray:
        return np.flatnonzero(progress.new > self.start)

    def __call__(self, progress: Progress, scores: np.ndarray) -> None:
        rows, ends = self.rows(progress)[:, None], list(self.ids)
        growth = np.float32(self.factor) ** (progress.new[rows] - self.start) - 1
        scores[rows, ends] += np.abs(scores[rows, ends]) * growth.astype(scores.dtype)


@dataclass(frozen=True)
class ForbidEarlyEnd(Processor):
    """Forbids the end tokens until a row is long enough."""

    ids: tuple[int, ...]
    settings: Settings

    def rows(self, progress: Progress) -> np.ndarray:
        return np.flatnonzero(progress.new < self.settings.least(progress.prompts))

    def __call__(self, progress: Progress, scores: np.ndarray) -> None:
        scores[self.rows(progress)[:, None], list(self.ids)] = -np.inf


@dataclass(frozen=True)
class ForceFirst(Processor):
    """Leaves one token to rows that are one token long: the language to translate into, for example."""

    def rows(self, progress: Progress) -> np.ndarray:
        return np.flatnonzero((progress.history.lengths == 1) & (progress.first >= 0))

    def __call__(self, progress: Progress, scores: np.ndarray) -> None:
        rows = self.rows(progress)
        scores[rows] = -np.inf
        scores[rows, progress.first[rows]] = 0


@dataclass(frozen=True)
class ForceEnd(Processor):
    """Leaves the end tokens to rows that have room for one token more."""

    ids: tuple[int, ...]

    def rows(self, progress: Progress) -> np.ndarray:
        return np.flatnonzero(progress.new == progress.limits - 1)

    def __call__(self, progress: Progress, scores: np.ndarray) -> None:
        rows = self.rows(progress)
        scores[rows] = -np.inf
        scores[rows[:, None], list(self.ids)] = 0


@dataclass(frozen=True)
class Suppress(Processor):
    """Forbids tokens."""

    ids: tuple[int, ...]

    def __call__(self, progress: Progress, scores: np.ndarray) -> None:
        scores[:, list(self.ids)] = -np.inf


@dataclass(frozen=True)
class SuppressFirst(Processor):
    """Forbids tokens right behind the prompt, or behind the first token where that one is forced."""

    ids: tuple[int, ...]

    def rows(self, progress: Progress) -> np.ndarray:
        forced = (progress.prompts == 1) & (progress.first >= 0)
        return np.flatnonzero(progress.new == forced)

    def __call__(self, progress: Progress, scores: np.ndarray) -> None:
        scores[self.rows(progress)[:, None], list(self.ids)] = -np.inf


def processors_of(settings: Settings) -> Sequence[Processor]:
    """Choose the processors that settings ask for, in Hugging Face's order."""
    ends = settings.eos_token_id
    bad = tuple((ids, -np.inf) for ids in settings.bad_words_ids if not (len(ids) == 1 and ids[0] in ends))
    early = ends and (settings.min_new_tokens > 0 or settings.min_length > 0)
    chosen: list[tuple[object, Processor]] = [
        (settings.sequence_bias, BiasSequences(settings.sequence_bias)),
        (settings.encoder_repetition_penalty != 1.0, FavourGiven(settings.encoder_repetition_penalty)),
        (settings.repetition_penalty != 1.0, PenaliseRepetition(settings.repetition_penalty)),
        (settings.no_repeat_ngram_size, ForbidRepeatedNGrams(settings.no_repeat_ngram_size)),
        (settings.encoder_no_repeat_ngram_size, ForbidGivenNGrams(settings.encoder_no_repeat_ngram_size)),
        (bad, BiasSequences(bad)),
        (early, ForbidEarlyEnd(ends, settings)),
        (True, ForceFirst()),
        (settings.forced_eos_token_id, ForceEnd(settings.forced_eos_token_id)),
        (
            ends and settings.exponential_decay_length_penalty,
            PressToEnd(ends, *(settings.exponential_decay_length_penalty or (0, 1.0))),
        ),
        (settings.suppress_tokens, Suppress(settings.suppress_tokens)),
        (settings.begin_suppress_tokens, SuppressFirst(settings.begin_suppress_tokens)),
    ]
    return [processor for wanted, processor in chosen if wanted]
