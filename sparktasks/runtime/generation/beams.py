"""Beam search, by the rules of Hugging Face's generation (4.57): every text by itself, many at once.

A text has ``beams`` rows. Each step ranks the continuations of all its rows; those that end a text compete for the
finished ones, the best of the others go on. A text is finished when no running row can beat its finished ones any
more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sparktasks.ops.logits import highest, log_softmax
from sparktasks.runtime.generation.batch import Batch, History
from sparktasks.runtime.generation.finished_beams import NEVER, REASONS, FinishedBeams
from sparktasks.runtime.generation.layout import Slot
from sparktasks.runtime.generation.processors import Progress
from sparktasks.runtime.generation.search import (
    EOS,
    LENGTH,
    STOP,
    NotANumber,
    NothingAllowed,
    Request,
    Result,
    Rules,
    TextStates,
    check_logits,
    filter_scores,
)

if TYPE_CHECKING:
    from typing_extensions import Self

_REAL = NEVER / 2  # lower scores are those of rows that do not exist, and of tokens that are not allowed
_GOES_ON = -1  # the reason of a continuation that does not end its text


@dataclass
class _Candidates:
    """Continuations of each text, best first: all of shape ``(texts, candidates)``.

    ``rows`` are the rows that they continue, ``tokens`` the tokens that they add, ``log_probabilities`` those of all
    their new tokens, as the model computed them.
    """

    scores: np.ndarray
    rows: np.ndarray
    tokens: np.ndarray
    log_probabilities: np.ndarray
    reasons: np.ndarray


class BeamSearch:
    """Several rows per text, of which the best continuations go on."""

    def __init__(self, requests: Sequence[Request], rules: Rules, slots: Sequence[Slot]) -> None:
        self.rules = rules
        self.width = rules.settings.num_beams
        self._slots = slots
        texts = len(requests)
        self._texts = TextStates.of(requests, rules.settings.do_sample)
        self._running = np.full((texts, self.width), NEVER, np.float32)
        self._running[:, 0] = 0  # all rows of a text begin alike: only the first counts
        self._log_probabilities = np.zeros((texts, self.width))
        self._improves = np.ones(texts, bool)
        self._finished = FinishedBeams(texts, self.width)

    def take(self, places: np.ndarray) -> Self:
        """Return the search of some of the texts."""
        taken = type(self)([], self.rules, self._slots)
        taken._texts = self._texts.take(places)
        taken._running = self._running[places]
        taken._log_probabilities = self._log_probabilities[places]
        taken._improves = self._improves[places]
        taken._finished = self._finished.take(places)
        return taken

    def join(self, other: Self) -> None:
        """Add the texts of another search after these."""
        self._texts = self._texts.join(other._texts)
        self._running = np.concatenate([self._running, other._running])
        self._log_probabilities = np.concatenate([self._log_probabilities, other._log_probabilities])
        self._improves = np.concatenate([self._improves, other._improves])
        self._finished.join(other._finished)

    def advance(self, logits: np.ndarray, batch: Batch) -> list[tuple[int, Result]]:
        """Rank the continuations of each text; reorder the batch's rows to those that go on, and append their
        tokens."""
        texts, beams = self._running.shape
        logits, parts, broken_rows = check_logits(logits)
        broken = np.asarray(broken_rows.reshape(texts, beams).any(axis=1))
        candidates = self._candidates(logits, parts, batch.history)
        self._offer(batch.history, candidates)

        has_ended = candidates.reasons != _GOES_ON
        scores = candidates.scores + has_ended.astype(np.float32) * NEVER
        going_on = highest(scores, beams)
        self._running = np.take_along_axis(scores, going_on, 1)
        self._log_probabilities = np.take_along_axis(candidates.log_probabilities, going_on, 1)
        batch.reorder(self._slots, np.take_along_axis(candidates.rows, going_on, 1).ravel())
        batch.history.append(np.take_along_axis(candidates.tokens, going_on, 1).ravel())
        self._texts.new += 1
        return self._results(broken, has_ended.all(axis=1))

    def _candidates(
        self,
        logits: np.ndarray,
        parts: tuple[np.ndarray, np.ndarray],
        history: History,
    ) -> _Candidates:
        """Choose continuations of each text: the best, or sampled without replacement (by adding Gumbel noise,
        arXiv:1903.06059)."""
        texts, beams = self._running.shape
        vocabulary = logits.shape[1]
        # So many that, whichever of them end a text, there are as many left as a text has rows.
        count = max(2, 1 + len(self.rules.settings.eos_token_id)) * beams
        processed = self._processed(logits, parts, history)
        noise = np.zeros((len(logits), 0))
        ranked = processed
        if self._texts.random:
            noise = np.concatenate([random.gumbel(size=(beams, vocabulary)) for random in self._texts.random])
            ranked = processed + noise

        # The best of each row first: a row has no more to give than its text needs.
        tokens = highest(ranked, min(count, vocabulary))
        scores = np.take_along_axis(processed, tokens, 1)
        if processed is logits:
            scores = log_softmax(scores, parts)
        scores = scores + self._running.reshape(-1, 1)
        ranks = scores
        if self._texts.random:
            ranks = scores + np.take_along_axis(noise, tokens, 1)

        best = highest(ranks.reshape(texts, -1), count)
        best_rows = best // tokens.shape[1] + np.arange(texts)[:, None] * beams
        best_tokens = np.take_along_axis(tokens.reshape(texts, -1), best, 1)
        model_scores = (logits[best_rows, best_tokens] - parts[0][best_rows, 0]) - parts[1][best_rows, 0]
        return _Candidates(
            scores=np.take_along_axis(scores.reshape(texts, -1), best, 1),
            rows=best_rows,
            tokens=best_tokens,
            log_probabilities=self._log_probabilities.ravel()[best_rows] + model_scores,
            reasons=self._reasons(history, best_rows, best_tokens),
        )

    def _processed(
        self,
        logits: np.ndarray,
        parts: tuple[np.ndarray, np.ndarray],
        history: History,
    ) -> np.ndarray:
        """Return the log-probabilities as the processors leave them; the logits themselves if nothing would change
        their order."""
        settings = self.rules.settings
        texts = self._texts
        encoder_inputs = []
        for ids in texts.encoder_inputs:
            encoder_inputs += [ids] * self.width
        progress = Progress(
            history=history,
            new=np.repeat(texts.new, self.width),
            limits=np.repeat(texts.limits, self.width),
            forced_first=np.repeat(texts.forced_first, self.width),
            encoder_inputs=encoder_inputs,
        )
        active = self.rules.active(progress)
        if not active and not settings.do_sample:
            return logits
        scores = log_softmax(logits, parts)
        for processor in active:
            processor(progress, scores)
        if settings.do_sample:
            # A token that is no end must stay, else all rows of a text could end at once.
            filter_scores(scores, settings, keep=max(2, len(settings.eos_token_id) + 1))
        return scores

    def _reasons(self, history: History, rows: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """Return why each continuation ends its text, as an index of `REASONS`."""
        is_full = (self._texts.new + 1 >= self._texts.limits)[:, None]
        ends = self.rules.ends(tokens)
        if self.rules.settings.forced_eos_token_id:
            ends &= ~is_full  # an end token that the limit forces on a text is not the model's own end
        reasons = np.where(ends, REASONS.index(EOS), np.where(is_full, REASONS.index(LENGTH), _GOES_ON))
        if self.rules.stops is None:
            return reasons
        for place in zip(*np.nonzero(~ends), strict=True):
            row = rows[place]
            count = min(int(history.lengths[row]), self.rules.stop_tokens - 1)
            if self.rules.stops([*history.row(row, count), int(tokens[place])]):
                reasons[place] = REASONS.index(STOP)
        return reasons

    def _offer(self, history: History, candidates: _Candidates) -> None:
        """Let continuations that end compete with the finished ones; only the best ``beams`` of each text may."""
        settings = self.rules.settings
        beams = self.width
        scores = candidates.scores[:, :beams]
        reasons = candidates.reasons[:, :beams]
        ends = (reasons != _GOES_ON) & (scores > _REAL)
        if not ends.any():
            return
        new = (self._texts.new + 1)[:, None]
        scores = scores / new.astype(np.float32) ** np.float32(settings.length_penalty)
        # No more may finish where as many are finished as were asked for, or where none can be better.
        is_full = self._finished.exists.all(axis=1) & (settings.early_stopping is True)
        is_closed = is_full | ~self._improves
        scores = scores + is_closed[:, None].astype(np.float32) * NEVER
        scores = scores + (~ends).astype(np.float32) * NEVER

        offered = FinishedBeams(len(ends), beams)
        offered.scores = scores.astype(np.float32)
        offered.exists = ends
        offered.tokens = self._tokens(history, candidates.rows[:, :beams], candidates.tokens[:, :beams])
        offered.counts = np.repeat(new, beams, axis=1)
        offered.reasons = reasons
        offered.log_probabilities = candidates.log_probabilities[:, :beams]
        self._finished.offer(offered)

    def _tokens(self, history: History, rows: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """Return the new tokens of continuations, aligned to the right, shape ``(texts, beams, longest)``."""
        longest = int(self._texts.new.max())
        before = history.ids[rows, history.width - longest :]
        return np.concatenate([before, tokens[..., None]], axis=2)

    def _results(self, broken: np.ndarray, all_end: np.ndarray) -> list[tuple[int, Result]]:
        """Return the texts that are finished, by place: those that cannot improve any more, or cannot go on."""
        settings = self.rules.settings
        finished = self._finished
        # With "never", the best that a row may become: the score that it would have at the text's limit.
        looks_ahead = settings.early_stopping == "never" and settings.length_penalty > 0.0
        lengths = self._texts.new
        if looks_ahead:
            lengths = self._texts.limits
        best = self._running[:, 0] / lengths.astype(np.float32) ** np.float32(settings.length_penalty)
        best = np.where(self._running[:, 0] > _REAL, best, -np.inf)
        worst = np.where(finished.exists, finished.scores.min(axis=1, keepdims=True), NEVER)
        self._improves &= (best[:, None] > worst).any(axis=1)
        is_open = ~finished.exists.all(axis=1) | (settings.early_stopping is not True)

        results: list[tuple[int, Result]] = []
        for text in np.flatnonzero(broken | ~self._improves | ~is_open | all_end).tolist():
            if broken[text]:
                results.append((text, NotANumber()))
            else:
                generated = finished.results(text, settings.num_return_sequences)
                results.append((text, generated or NothingAllowed()))
        return results
