"""Beam search, by the rules of Hugging Face's generation (4.57): every text by itself, many at once.

A text has ``beams`` rows. Each step ranks the continuations of all its rows; those that end a text compete for the
finished ones, the best of the others go on. A text is done when no running row can beat its finished ones any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sparktasks.ops.logits import highest, log_softmax
from sparktasks.runtime.generation.batch import Batch, History
from sparktasks.runtime.generation.layout import Slot
from sparktasks.runtime.generation.processors import Progress
from sparktasks.runtime.generation.search import (
    EOS,
    LENGTH,
    STOP,
    Generated,
    NotANumber,
    NothingAllowed,
    Request,
    Rules,
    checked,
    filter_scores,
    random_of,
)

if TYPE_CHECKING:
    from typing_extensions import Self

_NEVER = np.float32(-1e9)
_REAL = _NEVER / 2  # scores below are those of rows that are not there, and of tokens that are not allowed
_REASONS = (LENGTH, EOS, STOP)


class _Finished:
    """The best finished continuations of each text: shape ``(texts, beams)``, tokens ``(texts, beams, new)``."""

    def __init__(self, texts: int, beams: int) -> None:
        self.scores = np.full((texts, beams), _NEVER, np.float32)
        self.there = np.zeros((texts, beams), bool)
        self.tokens = np.zeros((texts, beams, 0), np.int64)
        self.counts = np.zeros((texts, beams), np.int64)
        self.reasons = np.zeros((texts, beams), np.int64)
        self.logs = np.zeros((texts, beams))

    _names = ("scores", "there", "tokens", "counts", "reasons", "logs")

    def take(self, places: np.ndarray) -> _Finished:
        found = _Finished(0, 0)
        for name in self._names:
            setattr(found, name, getattr(self, name)[places])
        return found

    def join(self, other: _Finished) -> None:
        width = max(self.tokens.shape[2], other.tokens.shape[2])
        self.tokens, other.tokens = _widened(self.tokens, width), _widened(other.tokens, width)
        for name in self._names:
            setattr(self, name, np.concatenate([getattr(self, name), getattr(other, name)]))

    def offer(self, other: _Finished) -> None:
        """Keep the best of these and others; equal ones stay before new ones."""
        beams = self.scores.shape[1]
        width = max(self.tokens.shape[2], other.tokens.shape[2])
        self.tokens, other.tokens = _widened(self.tokens, width), _widened(other.tokens, width)
        best = highest(np.concatenate([self.scores, other.scores], axis=1), beams)
        for name in self._names:
            both = np.concatenate([getattr(self, name), getattr(other, name)], axis=1)
            setattr(self, name, both[np.arange(len(both))[:, None], best])


def _widened(tokens: np.ndarray, width: int) -> np.ndarray:
    """Make room to the left: tokens stand at the right."""
    return np.pad(tokens, ((0, 0), (0, 0), (width - tokens.shape[2], 0)))


class BeamSearch:
    """Several rows a text, of which the best continuations go on."""

    def __init__(self, requests: Sequence[Request], rules: Rules, slots: Sequence[Slot]) -> None:
        self.rules, self._slots, texts = rules, slots, len(requests)
        self.width = rules.settings.num_beams
        self._running = np.full((texts, self.width), _NEVER, np.float32)
        self._running[:, 0] = 0  # all rows of a text begin alike: only the first counts
        self._logs = np.zeros((texts, self.width))
        self._new = np.zeros(texts, np.int64)
        self._limits = np.array([request.limit for request in requests], np.int64)
        self._first = np.array([-1 if request.first is None else request.first for request in requests], np.int64)
        self._finished = _Finished(texts, self.width)
        self._improves = np.ones(texts, bool)
        self._given = [request.given for request in requests]
        self._random = [random_of(request) for request in requests] if rules.settings.do_sample else []

    _names = ("_running", "_logs", "_new", "_limits", "_first", "_improves")

    def take(self, places: np.ndarray) -> Self:
        found = type(self)([], self.rules, self._slots)
        for name in self._names:
            setattr(found, name, getattr(self, name)[places])
        found._finished = self._finished.take(places)
        found._given = [self._given[place] for place in places]
        found._random = [self._random[place] for place in places] if self._random else []
        return found

    def join(self, other: Self) -> None:
        for name in self._names:
            setattr(self, name, np.concatenate([getattr(self, name), getattr(other, name)]))
        self._finished.join(other._finished)
        self._given += other._given
        self._random += other._random

    def advance(self, logits: np.ndarray, batch: Batch) -> list[tuple[int, list[Generated] | Exception]]:
        """Rank the continuations of each text; reorder the batch's rows to those that go on, and append their
        tokens."""
        texts, beams = len(self._new), self.width
        logits, parts, broken_rows = checked(logits)
        broken = np.asarray(broken_rows.reshape(texts, beams).any(axis=1))
        candidates, rows, tokens = self._candidates(logits, parts, batch.history)
        picked = (logits[rows, tokens] - parts[0][rows, 0]) - parts[1][rows, 0]
        logs = self._logs.ravel()[rows] + picked
        reasons = self._reasons(batch.history, rows, tokens)
        self._offer(batch.history, rows, tokens, candidates, logs, reasons)
        after = candidates + (reasons >= 0).astype(np.float32) * _NEVER
        going = highest(after, beams)
        self._running = np.take_along_axis(after, going, 1)
        self._logs = np.take_along_axis(logs, going, 1)
        batch.reorder(self._slots, np.take_along_axis(rows, going, 1).ravel())
        batch.history.append(np.take_along_axis(tokens, going, 1).ravel())
        self._new += 1
        return self._done(broken, np.all(reasons >= 0, axis=1))

    def _candidates(
        self, logits: np.ndarray, parts: tuple[np.ndarray, np.ndarray], history: History
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Choose continuations of each text: the best, or sampled without replacement (by adding Gumbel noise,
        arXiv:1903.06059).

        Returns their scores, the rows that they continue, and their tokens: each ``(texts, count)``, best first.
        """
        texts, beams, vocabulary = len(self._new), self.width, logits.shape[1]
        count = max(2, 1 + len(self.rules.settings.eos_token_id)) * beams
        running = self._running.reshape(-1, 1)
        scores = self._processed(logits, parts, history)
        noise = (
            np.concatenate([random.gumbel(size=(beams, vocabulary)) for random in self._random])
            if self._random
            else None
        )
        tokens = highest(
            scores if noise is None else scores + noise, min(count, vocabulary)
        )  # of each row first: it has no more to give
        found = np.take_along_axis(scores, tokens, 1)
        if scores is logits:
            found = log_softmax(found, parts)
        found = found + running
        ranks = found if noise is None else found + np.take_along_axis(noise, tokens, 1)
        best = highest(ranks.reshape(texts, -1), count)
        rows = best // tokens.shape[1] + np.arange(texts)[:, None] * beams
        return (
            np.take_along_axis(found.reshape(texts, -1), best, 1),
            rows,
            np.take_along_axis(tokens.reshape(texts, -1), best, 1),
        )

    def _processed(self, logits: np.ndarray, parts: tuple[np.ndarray, np.ndarray], history: History) -> np.ndarray:
        """Return the log-probabilities as the processors leave them; the logits themselves where nothing would change
        their order."""
        settings = self.rules.settings
        given = [ids for ids in self._given for _ in range(self.width)]
        new, limits, first = (np.repeat(values, self.width) for values in (self._new, self._limits, self._first))
        progress = Progress(history, new, limits, first, given)
        acting = self.rules.acting(progress)
        if not acting and not settings.do_sample:
            return logits
        scores = log_softmax(logits, parts)
        for processor in acting:
            processor(progress, scores)
        if settings.do_sample:
            filter_scores(scores, settings, len(settings.eos_token_id) + 1 if settings.eos_token_id else 2)
        return scores

    def _reasons(self, history: History, rows: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """Say why each continuation ends its text, as an index of `_REASONS`; -1 where it goes on."""
        full = (self._new + 1 >= self._limits)[:, None]
        ends = self.rules.ends(tokens) & ~(
            full & bool(self.rules.settings.forced_eos_token_id)
        )  # a forced end is no end of its own
        reasons = np.where(ends, 1, np.where(full, 0, -1))
        if self.rules.stops is not None:
            for place in zip(*np.nonzero(reasons <= 0), strict=True):
                row = rows[place]
                last = min(int(history.lengths[row]), self.rules.stop_tokens - 1)
                if self.rules.stops([*history.row(row, last), int(tokens[place])]):
                    reasons[place] = 2
        return reasons

    def _offer(
        self,
        history: History,
        rows: np.ndarray,
        tokens: np.ndarray,
        candidates: np.ndarray,
        logs: np.ndarray,
        reasons: np.ndarray,
    ) -> None:
        """Let continuations that end compete with the finished ones; only the best ``beams`` of each text may."""
        settings, beams = self.rules.settings, self.width
        ends = (reasons >= 0)[:, :beams] & (candidates[:, :beams] > _REAL)
        if not ends.any():
            return
        length = (self._new + 1)[:, None].astype(np.float32) ** np.float32(settings.length_penalty)
        scores = candidates[:, :beams] / length
        closed = self._finished.there.all(axis=1) & (settings.early_stopping is True) | ~self._improves
        scores = scores + closed[:, None].astype(np.float32) * _NEVER
        scores = scores + (~ends).astype(np.float32) * _NEVER
        offered = _Finished(len(ends), beams)
        offered.scores, offered.there = scores.astype(np.float32), ends
        offered.tokens = self._tokens(history, rows[:, :beams], tokens[:, :beams])
        offered.counts = np.repeat((self._new + 1)[:, None], beams, axis=1)
        offered.reasons, offered.logs = reasons[:, :beams], logs[:, :beams]
        self._finished.offer(offered)

    def _tokens(self, history: History, rows: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """Return the new tokens of continuations, aligned to the right, shape ``(texts, beams, longest)``."""
        longest = int(self._new.max())
        before = history.ids[rows, history.width - longest :] if longest else np.zeros((*rows.shape, 0), np.int64)
        return np.concatenate([before, tokens[..., None]], axis=2)

    def _done(self, broken: np.ndarray, all_end: np.ndarray) -> list[tuple[int, list[Generated] | Exception]]:
        settings, finished = self.rules.settings, self._finished
        never = settings.early_stopping == "never" and settings.length_penalty > 0.0
        best_length = (self._limits if never else self._new).astype(np.float32)
        best = self._running[:, 0] / best_length ** np.float32(settings.length_penalty)
        best = np.where(self._running[:, 0] > _REAL, best, -np.inf)
        worst = np.where(finished.there, finished.scores.min(axis=1, keepdims=True), _NEVER)
        self._improves &= (best[:, None] > worst).any(axis=1)
        open_beam = ~finished.there.all(axis=1) | (settings.early_stopping is not True)
        done = np.flatnonzero(broken | ~self._improves | ~open_beam | all_end)
        return [
            (int(text), NotANumber() if broken[text] else self._made(int(text)) or NothingAllowed()) for text in done
        ]

    def _made(self, text: int) -> list[Generated]:
        """Return a text's best finished continuations; there may be fewer than are wanted."""
        found, made = self._finished, []
        for beam in range(self.rules.settings.num_return_sequences):
            if not found.there[text, beam]:
                break
            count = int(found.counts[text, beam])
            ids = found.tokens[text, beam, found.tokens.shape[2] - count :].tolist()
            made.append(
                Generated(ids, _REASONS[found.reasons[text, beam]], float(found.logs[text, beam]) / max(1, count))
            )
        return made
