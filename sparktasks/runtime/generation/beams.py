"""Beam search, by the rules of Hugging Face's generation (4.57): every text by itself, many at once.

A text has ``beams`` rows. Each step ranks the continuations of all its rows; those that end a text compete for the
finished ones, the best of the others go on. A text is done when no running row can beat its finished ones any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sparktasks.ops.sampling import log_softmax
from sparktasks.runtime.generation.batch import Batch, History
from sparktasks.runtime.generation.layout import Slot
from sparktasks.runtime.generation.processors import Progress
from sparktasks.runtime.generation.search import EOS, LENGTH, STOP, Generated, NotANumber, Request, Rules, filter_scores, random_of

if TYPE_CHECKING:
    from typing_extensions import Self

_NEVER = np.float32(-1e9)
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
        best = _best(np.concatenate([self.scores, other.scores], axis=1), beams)
        for name in self._names:
            both = np.concatenate([getattr(self, name), getattr(other, name)], axis=1)
            setattr(self, name, both[np.arange(len(both))[:, None], best])


def _widened(tokens: np.ndarray, width: int) -> np.ndarray:
    """Make room to the left: tokens stand at the right."""
    return np.pad(tokens, ((0, 0), (0, 0), (width - tokens.shape[2], 0)))


def _best(scores: np.ndarray, count: int) -> np.ndarray:
    """Return the places of the highest scores of each row, best first, shape ``(rows, count)``; equal ones keep their order."""
    if count * 8 < scores.shape[1]:
        some = np.sort(np.argpartition(-scores, count, axis=1)[:, : count + 1], axis=1)
        picked = np.take_along_axis(scores, some, 1)
        return np.take_along_axis(some, np.argsort(-picked, axis=1, kind="stable")[:, :count], 1)
    return np.argsort(-scores, axis=1, kind="stable")[:, :count]


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
        self._random = [random_of(request) for request in requests] if rules.settings.do_sample else []

    _names = ("_running", "_logs", "_new", "_limits", "_first", "_improves")

    def take(self, places: np.ndarray) -> Self:
        found = type(self)([], self.rules, self._slots)
        for name in self._names:
            setattr(found, name, getattr(self, name)[places])
        found._finished = self._finished.take(places)
        found._random = [self._random[place] for place in places] if self._random else []
        return found

    def join(self, other: Self) -> None:
        for name in self._names:
            setattr(self, name, np.concatenate([getattr(self, name), getattr(other, name)]))
        self._finished.join(other._finished)
        self._random += other._random

    def advance(self, logits: np.ndarray, batch: Batch) -> list[tuple[int, list[Generated] | Exception]]:
        """Rank the continuations of each text; reorder the batch's rows to those that go on, and append their tokens."""
        texts, beams, vocabulary = len(self._new), self.width, logits.shape[1]
        raw = log_softmax(logits.astype(np.float32))
        broken = np.isnan(raw).any(axis=1).reshape(texts, beams).any(axis=1)
        scores = self._processed(raw, batch.history).reshape(texts, beams * vocabulary)
        count = max(2, 1 + len(self.rules.settings.eos_token_id)) * beams
        places = self._candidates(scores, count)
        candidates = np.take_along_axis(scores, places, 1)
        parents, tokens = places // vocabulary, places % vocabulary
        rows = parents + np.arange(texts)[:, None] * beams
        logs = np.take_along_axis(self._logs, parents, 1) + raw[rows, tokens]
        reasons = self._reasons(batch.history, rows, tokens)
        self._offer(batch.history, rows, tokens, candidates, logs, reasons)
        after = candidates + (reasons >= 0).astype(np.float32) * _NEVER
        going = _best(after, beams)
        self._running = np.take_along_axis(after, going, 1)
        self._logs = np.take_along_axis(logs, going, 1)
        batch.reorder(self._slots, np.take_along_axis(rows, going, 1).ravel())
        batch.history.append(np.take_along_axis(tokens, going, 1).ravel())
        self._new += 1
        return self._done(broken, np.all(reasons >= 0, axis=1))

    def _processed(self, raw: np.ndarray, history: History) -> np.ndarray:
        settings, beams = self.rules.settings, self.width
        scores = raw.copy()
        progress = Progress(history, *(np.repeat(values, beams) for values in (self._new, self._limits, self._first)))
        self.rules.process(progress, scores)
        if settings.do_sample:
            filter_scores(scores, settings, len(settings.eos_token_id) + 1 if settings.eos_token_id else 2)
        return scores + self._running.reshape(-1, 1)

    def _candidates(self, scores: np.ndarray, count: int) -> np.ndarray:
        """Choose continuations: the best, or drawn without replacement (by adding Gumbel noise, arXiv:1903.06059)."""
        if not self._random:
            return _best(scores, count)
        return _best(scores + np.stack([random.gumbel(size=scores.shape[1]) for random in self._random]), count)

    def _reasons(self, history: History, rows: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """Say why each continuation ends its text, as an index of `_REASONS`; -1 where it goes on."""
        full = (self._new + 1 >= self._limits)[:, None]
        ends = self.rules.ends(tokens) & ~(full & bool(self.rules.settings.forced_eos_token_id))  # a forced end is no end of its own
        reasons = np.where(ends, 1, np.where(full, 0, -1))
        if self.rules.stops is not None:
            for place in zip(*np.nonzero(reasons <= 0), strict=True):
                row = rows[place]
                last = min(int(history.lengths[row]), self.rules.stop_tokens - 1)
                if self.rules.stops([*history.row(row, last), int(tokens[place])]):
                    reasons[place] = 2
        return reasons

    def _offer(self, history: History, rows: np.ndarray, tokens: np.ndarray, candidates: np.ndarray, logs: np.ndarray, reasons: np.ndarray) -> None:
        """Let continuations that end compete with the finished ones; only the best ``beams`` of each text may."""
        settings, beams = self.rules.settings, self.width
        ends = (reasons >= 0)[:, :beams]
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
        worst = np.where(finished.there, finished.scores.min(axis=1, keepdims=True), _NEVER)
        self._improves &= (best[:, None] > worst).any(axis=1)
        open_beam = ~finished.there.all(axis=1) | (settings.early_stopping is not True)
        done = np.flatnonzero(broken | ~self._improves | ~open_beam | all_end)
        return [(int(text), NotANumber() if broken[text] else self._made(int(text))) for text in done]

    def _made(self, text: int) -> list[Generated]:
        """Return a text's best finished continuations."""
        found, made = self._finished, []
        for beam in range(self.rules.settings.num_return_sequences):
            count = int(found.counts[text, beam])
            ids = found.tokens[text, beam, found.tokens.shape[2] - count :].tolist() if count else []
            made.append(Generated(ids, _REASONS[found.reasons[text, beam]], float(found.logs[text, beam]) / max(1, count)))
        return made
