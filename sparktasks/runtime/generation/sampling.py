"""Choosing the next token, greedily or by sampling: one row per text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sparktasks.ops.logits import log_softmax
from sparktasks.ops.sampling import sample
from sparktasks.runtime.generation.batch import Batch, History
from sparktasks.runtime.generation.processors import Progress
from sparktasks.runtime.generation.search import (
    EOS,
    LENGTH,
    STOP,
    Generated,
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


class Sampling:
    """One row per text: the best token, or one that is sampled with the text's own random numbers."""

    width = 1

    def __init__(self, requests: Sequence[Request], rules: Rules) -> None:
        self.rules = rules
        self._texts = TextStates.of(requests, rules.settings.do_sample)
        self._log_probability = np.zeros(len(requests))

    def advance(self, logits: np.ndarray, batch: Batch) -> list[tuple[int, Result]]:
        """Choose the next token of each text, and append it to the batch's history."""
        texts = self._texts
        history = batch.history
        logits, parts, broken = check_logits(logits)
        progress = Progress(
            history=history,
            new=texts.new,
            limits=texts.limits,
            forced_first=texts.forced_first,
            encoder_inputs=texts.encoder_inputs,
        )
        active = self.rules.active(progress)
        scores = logits
        if active or texts.random:
            scores = logits.copy()
        for processor in active:
            processor(progress, scores)

        stuck = np.zeros(len(scores), bool)
        if active:
            stuck = np.isneginf(scores.max(axis=-1))
            if stuck.any():
                scores[stuck] = 0
        if texts.random:
            filter_scores(scores, self.rules.settings, keep=1)
            tokens = sample(scores, np.array([random.random() for random in texts.random]))
        else:
            tokens = scores.argmax(axis=-1)

        # The score of a text is the model's own, before processors and filters.
        chosen = np.take_along_axis(logits, tokens[:, None], -1)
        self._log_probability += log_softmax(chosen, parts)[:, 0]
        texts.new += 1
        history.append(tokens)
        return self._finished(tokens, history, broken, stuck)

    def _finished(
        self,
        tokens: np.ndarray,
        history: History,
        broken: np.ndarray,
        stuck: np.ndarray,
    ) -> list[tuple[int, Result]]:
        """Return the texts that are finished, by place."""
        ended = self.rules.ends(tokens)
        stopped = self.rules.stopped(history)
        full = self._texts.new >= self._texts.limits
        rows = np.flatnonzero(ended | full | stopped | broken | stuck).tolist()
        if not rows:
            return []  # as after most steps

        reasons = np.full(len(tokens), LENGTH, object)
        reasons[stopped] = STOP
        if self.rules.settings.forced_eos_token_id:
            reasons[ended & ~full] = EOS  # an end token that the limit forces on a text is not the model's own end
        else:
            reasons[ended] = EOS

        finished: list[tuple[int, Result]] = []
        for row in rows:
            if broken[row]:
                finished.append((row, NotANumber()))
            elif stuck[row]:
                finished.append((row, NothingAllowed()))
            else:
                count = int(self._texts.new[row])
                score = float(self._log_probability[row]) / count
                finished.append((row, [Generated(history.row(row, count), reasons[row], score)]))
        return finished

    def take(self, places: np.ndarray) -> Self:
        """Return the search of some of the texts."""
        taken = type(self)([], self.rules)
        taken._texts = self._texts.take(places)
        taken._log_probability = self._log_probability[places]
        return taken

    def join(self, other: Self) -> None:
        """Add the texts of another search after these."""
        self._texts = self._texts.join(other._texts)
        self._log_probability = np.concatenate([self._log_probability, other._log_probability])
