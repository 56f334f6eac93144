"""What changes the scores of the next token: Hugging Face's logits processors, on whole batches, in its order.

A processor takes the tokens so far and scores of shape ``(rows, vocabulary)``, and changes the scores in place.
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
    """Where each row stands: its tokens, how many of them are ``new``, and how many there may be; ``forced_first`` is
    the row's forced first token, or -1.

    ``encoder_inputs`` are the tokens that the encoder read; without an encoder, the prompts.
    """

    history: History
    new: np.ndarray
    limits: np.ndarray
    forced_first: np.ndarray
    encoder_inputs: Sequence[tuple[int, ...]]

    @property
    def prompt_lengths(self) -> np.ndarray:
        """The length of each row's prompt."""
        return np.asarray(self.history.lengths - self.new)


class Processor(ABC):
    """Changes the scores of rows' next tokens in place."""

    def rows(self, progress: Progress) -> np.ndarray:
        """Return the rows whose scores it changes now: all, unless a processor says otherwise."""
        return np.arange(len(progress.new))

    @abstractmethod
    def __call__(self, progress: Progress, scores: np.ndarray) -> None:
        """Change scores of shape ``(rows, vocabulary)``."""


@dataclass(frozen=True)
class BiasSequences(Processor):
    """Adds to the score of the token that would complete a sequence."""

    biases: tuple[Bias, ...]

    def __call__(self, progress: Progress, scores: np.ndarray) -> None:
        history = progress.history
        # Sums are collected first, one column per last token: several sequences may end with the same one.
        last_tokens = list(dict.fromkeys(ids[-1] for ids, _ in self.biases))
        column = {token: place for place, token in enumerate(last_tokens)}
        total = np.zeros((len(scores), len(last_tokens)), scores.dtype)
        for ids, bias in self.biases:
            before = np.array(ids[:-1], np.int64)
            if len(before) > history.width:
                continue
            matches = (history.ids[:, history.width - len(before) :] == before).all(axis=1)
            if len(before):
                # Hugging Face asks for a text as long as the whole sequence, one more than would do.
                matches &= history.lengths >= len(ids)
            total[matches, column[ids[-1]]] += bias
        scores[:, last_tokens] += total


@dataclass(frozen=True)
class PenaliseRepetition(Processor):
    """Divides positive scores of tokens that a row has, and multiplies negative ones (arXiv:1909.05858)."""

    penalty: float

    def __call__(self, progress: Progress, scores: np.ndarray) -> None:
        rows, columns = np.nonzero(progress.history.mask())
        ids = progress.history.ids[rows, columns]
        before = scores[rows, ids]
        scores[rows, ids] = np.where(before < 0, before * self.penalty, before / self.penalty)


@dataclass(frozen=True)
class FavourEncoderInput(Processor):
    """Makes tokens of the encoder's input more likely, the inverse of `PenaliseRepetition`."""

    penalty: float

    def __call__(self, progress: Progress, scores: np.ndarray) -> None:
        for row, encoder_input in enumerate(progress.encoder_inputs):
            ids = np.array(encoder_input)
            before = scores[row, ids]
            scores[row, ids] = np.where(before < 0, before / self.penalty, before * self.penalty)


@dataclass(frozen=True)
class ForbidRepeatedNGrams(Processor):
    """Forbids the token that would make an n-gram appear twice in a row's tokens."""

    size: int

    def __call__(self, progress: Progress, scores: np.ndarray) -> None:
        history = progress.history
        size = self.size
        if history.width < size:
            return
        grams = np.lib.stride_tricks.sliding_window_view(history.ids, size, axis=1)
        last_tokens = history.ids[:, history.width - size + 1 :]
        is_same = (grams[..., :-1] == last_tokens[:, None]).all(axis=-1)
        # N-grams that begin before a row's first token are made of padding.
        is_same &= np.arange(grams.shape[1]) >= history.starts[:, None]
        rows, columns = np.nonzero(is_same)
        scores[rows, grams[rows, columns, -1]] = -np.inf


@dataclass(frozen=True)
class ForbidEncoderNGrams(Processor):
    """Forbids the token that would complete an n-gram of the encoder's input."""

    size: int

    def __call__(self, progress: Progress, scores: np.ndarray) -> None:
        history = progress.history
        size = self.size
        for row, encoder_input in enumerate(progress.encoder_inputs):
            if len(encoder_input) < size or history.lengths[row] < size - 1:
                continue
            grams = np.lib.stride_tricks.sliding_window_view(np.array(encoder_input), size)
            last_tokens = np.array(history.row(row, size - 1), np.int64)
            is_same = (grams[:, :-1] == last_tokens).all(axis=1)
            scores[row, grams[is_same, -1]] = -np.inf


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
        return np.flatnonzero(progress.new < self.settings.minimum(progress.prompt_lengths))

    def __call__(self, progress: Progress, scores: np.ndarray) -> None:
        scores[self.rows(progress)[:, None], list(self.ids)] = -np.inf


@dataclass(frozen=True)
class ForceFirst(Processor):
    """Leaves one token to rows that are one token long: the language to translate into, for example."""

    def rows(self, progress: Progress) -> np.ndarray:
        return np.flatnonzero((progress.history.lengths == 1) & (progress.forced_first >= 0))

    def __call__(self, progress: Progress, scores: np.ndarray) -> None:
        rows = self.rows(progress)
        scores[rows] = -np.inf
        scores[rows, progress.forced_first[rows]] = 0


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
    """Forbids tokens right after the prompt, or after the first token where that one is forced."""

    ids: tuple[int, ...]

    def rows(self, progress: Progress) -> np.ndarray:
        is_forced = (progress.prompt_lengths == 1) & (progress.forced_first >= 0)
        return np.flatnonzero(progress.new == is_forced)

    def __call__(self, progress: Progress, scores: np.ndarray) -> None:
        scores[self.rows(progress)[:, None], list(self.ids)] = -np.inf


def processors_of(settings: Settings) -> Sequence[Processor]:
    """Choose the processors that settings ask for, in Hugging Face's order."""
    ends = settings.eos_token_id
    # Hugging Face leaves the end tokens alone, even where they are listed among the bad words.
    bad = tuple((ids, -np.inf) for ids in settings.bad_words_ids if len(ids) != 1 or ids[0] not in ends)
    has_minimum = settings.min_new_tokens > 0 or settings.min_length > 0
    decay_start, decay_factor = settings.exponential_decay_length_penalty or (0, 1.0)
    choices: list[tuple[object, Processor]] = [
        (settings.sequence_bias, BiasSequences(settings.sequence_bias)),
        (settings.encoder_repetition_penalty != 1.0, FavourEncoderInput(settings.encoder_repetition_penalty)),
        (settings.repetition_penalty != 1.0, PenaliseRepetition(settings.repetition_penalty)),
        (settings.no_repeat_ngram_size, ForbidRepeatedNGrams(settings.no_repeat_ngram_size)),
        (settings.encoder_no_repeat_ngram_size, ForbidEncoderNGrams(settings.encoder_no_repeat_ngram_size)),
        (bad, BiasSequences(bad)),
        (ends and has_minimum, ForbidEarlyEnd(ends, settings)),
        (True, ForceFirst()),
        (settings.forced_eos_token_id, ForceEnd(settings.forced_eos_token_id)),
        (ends and settings.exponential_decay_length_penalty, PressToEnd(ends, decay_start, decay_factor)),
        (settings.suppress_tokens, Suppress(settings.suppress_tokens)),
        (settings.begin_suppress_tokens, SuppressFirst(settings.begin_suppress_tokens)),
    ]
    return [processor for is_asked_for, processor in choices if is_asked_for]
