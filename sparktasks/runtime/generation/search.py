"""Choosing the next token: greedily or by sampling, one row a text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from sparktasks.ops.logits import log_parts, log_softmax
from sparktasks.ops.sampling import draw, keep_epsilon, keep_eta, keep_min_p, keep_top_k, keep_top_p, keep_typical
from sparktasks.runtime.generation.batch import Batch, History
from sparktasks.runtime.generation.processors import Processor, Progress
from sparktasks.runtime.generation.settings import Settings

if TYPE_CHECKING:
    from typing_extensions import Self

EOS, STOP, LENGTH = "eos", "stop", "length"
Stops = Callable[[list[int]], bool]


@dataclass(frozen=True)
class Request:
    """A text to be: the decoder's prompt, the encoder's source where there is one, what seeds its sampling, a forced
    first token."""

    prompt: tuple[int, ...]
    source: tuple[int, ...] = ()
    key: bytes = b""
    first: int | None = None
    limit: int = 0

    @property
    def given(self) -> tuple[int, ...]:
        """What the model was given to read: the source, or where there is no encoder, the prompt."""
        return self.source or self.prompt


@dataclass(frozen=True)
class Generated:
    """New tokens, the end token included; ``score`` is their mean log-probability; ``reason`` is why there are no
    more."""

    ids: list[int]
    reason: str
    score: float


@dataclass(frozen=True)
class Rules:
    """What a search obeys: settings, processors, and whether tokens end with a stop string."""

    settings: Settings
    processors: Sequence[Processor]
    stops: Stops | None
    stop_tokens: int = 0

    def acting(self, progress: Progress) -> list[Processor]:
        """Return the processors that change something now."""
        return [processor for processor in self.processors if len(processor.rows(progress))]

    def ends(self, tokens: np.ndarray) -> np.ndarray:
        """Tell which tokens end a text."""
        return np.isin(tokens, self.settings.eos_token_id)

    def stopped(self, history: History) -> np.ndarray:
        """Tell which rows end with a stop string."""
        if self.stops is None:
            return np.zeros(len(history.lengths), bool)
        lasts = np.minimum(history.lengths, self.stop_tokens)
        return np.array([self.stops(history.row(row, int(last))) for row, last in enumerate(lasts)])


class Search(Protocol):
    """The texts of a batch under way: ``width`` rows each."""

    width: int

    def advance(self, logits: np.ndarray, batch: Batch) -> list[tuple[int, list[Generated] | Exception]]:
        """Choose each row's next token by logits ``(rows, vocabulary)``, float32, and append it to the batch's history.

        Returns the texts that are done, by place.
        """

    def take(self, places: np.ndarray) -> Self:
        """Return the search of some of the texts."""

    def join(self, other: Self) -> None:
        """Add the texts of another search behind these."""


class NotANumber(ValueError):
    """A model computed no numbers where scores of tokens are expected."""

    def __init__(self) -> None:
        super().__init__("the model computed logits that are NaN or infinite")


class NothingAllowed(ValueError):
    """Settings contradict each other: no token is left to generate."""

    def __init__(self) -> None:
        super().__init__(
            "no token is left that all settings allow: jsonSchema or regex, badWords, suppressTokens, "
            "noRepeatNgramSize and minNewTokens may "
            "contradict each other"
        )


class Sampling:
    """One row a text: the best token, or one that is sampled with the row's own random numbers."""

    width = 1

    def __init__(self, requests: Sequence[Request], rules: Rules) -> None:
        self.rules = rules
        self._new = np.zeros(len(requests), np.int64)
        self._score = np.zeros(len(requests))
        self._limits = np.array([request.limit for request in requests], np.int64)
        self._first = np.array([-1 if request.first is None else request.first for request in requests], np.int64)
        self._given = [request.given for request in requests]
        self._random = [random_of(request) for request in requests] if rules.settings.do_sample else []

    def advance(self, logits: np.ndarray, batch: Batch) -> list[tuple[int, list[Generated] | Exception]]:
        rules, history = self.rules, batch.history
        logits, parts, broken = checked(logits)
        progress = Progress(history, self._new, self._limits, self._first, self._given)
        acting = rules.acting(progress)
        scores = logits.copy() if acting or self._random else logits
        for processor in acting:
            processor(progress, scores)
        stuck = np.isneginf(scores.max(axis=-1)) if acting else np.zeros(len(scores), bool)
        if stuck.any():
            scores[stuck] = 0
        tokens = self._sampled(scores) if self._random else scores.argmax(axis=-1)
        self._score += log_softmax(np.take_along_axis(logits, tokens[:, None], -1), parts)[:, 0]
        self._new += 1
        history.append(tokens)
        return self._finished(tokens, history, broken, stuck)

    def _sampled(self, scores: np.ndarray) -> np.ndarray:
        filter_scores(scores, self.rules.settings, 1)
        return draw(scores, np.array([random.random() for random in self._random]))

    def _finished(
        self, tokens: np.ndarray, history: History, broken: np.ndarray, stuck: np.ndarray
    ) -> list[tuple[int, list[Generated] | Exception]]:
        ended, full, stopped = self.rules.ends(tokens), self._new >= self._limits, self.rules.stopped(history)
        forced = bool(self.rules.settings.forced_eos_token_id)
        done: list[tuple[int, list[Generated] | Exception]] = []
        for row in np.flatnonzero(ended | full | stopped | broken | stuck):
            reason = EOS if ended[row] and not (full[row] and forced) else STOP if stopped[row] else LENGTH
            count = int(self._new[row])
            made = Generated(history.row(int(row), count), reason, float(self._score[row]) / count)
            done.append((int(row), NotANumber() if broken[row] else NothingAllowed() if stuck[row] else [made]))
        return done

    def take(self, places: np.ndarray) -> Self:
        found = type(self)([], self.rules)
        found._new, found._score, found._limits, found._first = (
            values[places] for values in (self._new, self._score, self._limits, self._first)
        )
        found._given = [self._given[place] for place in places]
        found._random = [self._random[place] for place in places] if self._random else []
        return found

    def join(self, other: Self) -> None:
        self._new, self._score = np.concatenate([self._new, other._new]), np.concatenate([self._score, other._score])
        self._limits, self._first = (
            np.concatenate([self._limits, other._limits]),
            np.concatenate([self._first, other._first]),
        )
        self._given += other._given
        self._random += other._random


def checked(logits: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Return logits, their `log_parts`, and which rows are broken: those whose highest is no finite number.

    Broken rows become zeros, so that nothing computes with them.
    """
    with np.errstate(invalid="ignore"):
        parts = log_parts(logits)
    broken: np.ndarray = ~np.isfinite(parts[0][:, 0])
    if broken.any():
        logits = np.where(broken[:, None], np.float32(0), logits)
        parts = log_parts(logits)
    return logits, parts, broken


def random_of(request: Request) -> np.random.Generator:
    """Return a row's own random numbers: they depend on its key alone, not on who runs beside it."""
    return np.random.Generator(np.random.Philox(key=int.from_bytes(request.key[:16], "little")))


def filter_scores(scores: np.ndarray, settings: Settings, keep: int) -> None:
    """Leave the tokens that may be sampled, in place; at least ``keep`` a row."""
    if settings.temperature != 1.0:
        scores /= settings.temperature
    if settings.top_k:
        keep_top_k(scores, settings.top_k, keep)
    if settings.top_p < 1.0:
        keep_top_p(scores, settings.top_p, keep)
    if settings.min_p is not None:
        keep_min_p(scores, settings.min_p, keep)
    if settings.typical_p < 1.0:
        keep_typical(scores, settings.typical_p, keep)
    if 0.0 < settings.epsilon_cutoff < 1.0:
        keep_epsilon(scores, settings.epsilon_cutoff, keep)
    if 0.0 < settings.eta_cutoff < 1.0:
        keep_eta(scores, settings.eta_cutoff, keep)
