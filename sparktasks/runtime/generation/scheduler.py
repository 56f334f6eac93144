"""Continuous batching: finished texts make room for waiting ones, so that the decoder's runs stay full.

Where rows of unequal length cannot be decoded together, texts join only when they are as long as those that run.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from sparktasks.errors import DataError, SparkTasksError
from sparktasks.runtime.batching import token_batches
from sparktasks.runtime.generation import groups
from sparktasks.runtime.generation.batch import Batch, merged
from sparktasks.runtime.generation.beams import BeamSearch
from sparktasks.runtime.generation.decoder import CachedPrefix, Decoder
from sparktasks.runtime.generation.groups import Group, Part
from sparktasks.runtime.generation.prefixes import Prefixes
from sparktasks.runtime.generation.sampling import Sampling
from sparktasks.runtime.generation.search import LENGTH, Generated, Request, Result, Rules, Search
from sparktasks.runtime.generation.waiting import Text, Waiting
from sparktasks.runtime.session import first_line

log = logging.getLogger(__name__)

T = TypeVar("T")

# Finished texts stay in a batch until no more than this share of its texts is still running: to leave them out costs
# a copy of the cache.
_SHRINK = 0.8


@dataclass(frozen=True)
class BatchLimits:
    """How much runs at once: ``sequences`` rows, ``cache_tokens`` in the cache, ``run_tokens`` of prompts in one run.

    ``alone`` is one text at a time, and nothing shared between texts.
    """

    sequences: int
    cache_tokens: int
    run_tokens: int
    alone: bool = False


class Scheduler:
    """Generates texts with a decoder, as many at once as there is room for.

    ``positions`` is the number of tokens that the model can tell the places of; None if it has no limit.
    """

    def __init__(
        self,
        decoder: Decoder,
        rules: Rules,
        limits: BatchLimits,
        pad_id: int = 0,
        positions: int | None = None,
    ) -> None:
        self.decoder = decoder
        self.rules = rules
        self.limits = limits
        self.pad_id = pad_id
        self.positions = positions
        self.prefixes = Prefixes(decoder)

    def run(self, requests: Sequence[Request]) -> list[Result]:
        """Generate all texts; if one of them fails, the error is its result."""
        if self.limits.alone:
            return [self.run_alone(request) for request in requests]
        prefixes = self._read_prefixes(requests)
        texts = []
        for number, (request, prefix) in enumerate(zip(requests, prefixes, strict=True)):
            texts.append(Text(number, request, prefix))
        return _Run(self, texts).finish()

    def run_alone(self, request: Request) -> Result:
        """Generate a text by itself, with nothing that others left behind."""
        (result,) = _Run(self, [Text(0, request)], is_alone=True).finish()
        return result

    def _read_prefixes(self, requests: Sequence[Request]) -> list[CachedPrefix | None]:
        """Return what need not be read of each prompt: nothing if the prefixes cannot be read."""
        try:
            return self.prefixes.find([request.prompt for request in requests])
        except SparkTasksError:
            raise
        except Exception as error:  # onnxruntime raises a family of its own, without a common parent
            log.warning("a prefix that texts share could not be read: %s", first_line(error))
            return [None] * len(requests)

    def search(self, requests: Sequence[Request]) -> Search:
        """Begin the search for some texts."""
        if self.rules.settings.num_beams > 1:
            return BeamSearch(requests, self.rules, self.decoder.slots)
        return Sampling(requests, self.rules)


class _Run:
    """One call's texts: those that wait, those that run, those that are finished."""

    def __init__(self, scheduler: Scheduler, texts: Sequence[Text], is_alone: bool = False) -> None:
        self._scheduler = scheduler
        self._decoder = scheduler.decoder
        self._slots = scheduler.decoder.slots
        self._limits = scheduler.limits
        self._is_alone = is_alone
        self._texts = texts
        self._mixes_lengths = self._decoder.layout.aligns
        self._rows = scheduler.rules.settings.num_beams
        self._most = max(1, self._limits.sequences // self._rows)  # texts at once
        self._results: dict[int, Result] = {}
        self._ready: list[Part] = []  # texts that have begun, and have no place in the running group yet
        waiting = []
        for text in texts:
            self._settle(text)
            if text.number not in self._results:
                waiting.append(text)
        self._waiting = Waiting(
            waiting,
            self._decoder.layout,
            rows=self._rows,
            cache_tokens=self._limits.cache_tokens,
        )

    def _settle(self, text: Text) -> None:
        """Set the result of a text that needs no run, or that has no room for one."""
        settings = self._scheduler.rules.settings
        needed = text.cache_tokens * self._rows
        room = self._limits.cache_tokens
        if text.request.limit <= 0:
            self._results[text.number] = [Generated([], LENGTH, 0.0)] * settings.num_return_sequences
        elif needed > room:
            self._results[text.number] = DataError(
                f"it needs room for {needed} tokens in a cache of {room} (cacheTokens)"
            )

    def finish(self) -> list[Result]:
        """Generate all texts; returns their results, in order."""
        group: Group | None = None
        while len(self._results) < len(self._texts):
            group = self._refill(group)
            if group is not None:
                group = self._step(group)
        return [self._results[text.number] for text in self._texts]

    # -- joining and leaving

    def _refill(self, group: Group | None) -> Group | None:
        """Take waiting texts in if there is room, and drop the rows of finished ones if that pays."""
        if group is None:
            first = self._admit([], self._waiting.fitting(None))
            return groups.merge(self._slots, first)
        running = self._running(group)
        new = self._joining(group, running)
        if not new and len(running) == len(group.texts):
            return group
        must_shrink = self._has_outgrown(group)
        if new and not must_shrink and groups.can_replace(group, running, new, self._mixes_lengths):
            groups.replace(self._slots, group, running, new)
            return group
        if new or must_shrink or len(running) <= _SHRINK * len(group.texts):
            return groups.merge(self._slots, [(group, running), *new])
        return group

    def _running(self, group: Group) -> np.ndarray:
        """Return the places of a group's texts that are not finished."""
        results = self._results
        places = [place for place, text in enumerate(group.texts) if text.number not in results]
        return np.array(places, np.int64)

    def _has_outgrown(self, group: Group) -> bool:
        """Return whether a row, which must be finished, has come to the end of the model's positions."""
        positions = self._scheduler.positions
        longest = int(group.batch.history.lengths.max())
        return positions is not None and longest >= positions

    def _joining(self, group: Group, running: np.ndarray) -> list[Part]:
        """Return the texts that join a group now."""
        length = None
        if len(running):
            # The last token of a running row is not read yet: it stands where a text that joins has its first new one.
            length = group.batch.history.width - 1
        fitting = self._waiting.fitting(length)
        if not fitting and not self._ready:
            return []
        # Texts that must be as long as the running ones do not fit any more after the next step: they join at once.
        # Others wait until a place is free.
        if self._mixes_lengths and len(running) == len(group.texts):
            return []
        return self._admit([group.texts[place] for place in running], fitting)

    def _admit(self, running: Sequence[Text], fitting: Sequence[Text]) -> list[Part]:
        """Return as many texts that have begun as there is room for beside the running ones."""
        free = self._most - len(running)
        ready: list[Text] = []
        for group, places in self._ready:
            ready += [group.texts[place] for place in places]
        if len(ready) < free:
            most = free
            if self._mixes_lengths and running:
                # Prompts that are read together cost less: more texts begin than have a place yet.
                most = self._most
            self._begin([*running, *ready], fitting, most)

        taken: list[Part] = []
        while free and self._ready:
            group, places = self._ready.pop(0)
            if len(places) > free:
                self._ready.insert(0, (group, places[free:]))
                places = places[:free]
            taken.append((group, places))
            free -= len(places)
        return taken

    def _begin(self, begun: Sequence[Text], fitting: Sequence[Text], most: int) -> None:
        """Begin at most so many of the fitting texts."""
        texts = self._waiting.take(fitting, begun, most)
        lengths = [text.unread_tokens for text in texts]
        for places in token_batches(lengths, self._limits.run_tokens):
            self._start([texts[place] for place in places])

    # -- running the decoder

    def _start(self, texts: list[Text]) -> None:
        """Read the sources and prompts of some texts, and choose their first tokens; then they are ready to go on."""
        output = self._try(texts, lambda: self._read(texts))
        if output is None:
            return
        logits, batch = output
        if self._rows > 1:
            rows = np.repeat(np.arange(len(texts)), self._rows)
            logits = logits[rows]
            batch = merged(self._slots, [(batch, rows)])
        search = self._scheduler.search([text.request for text in texts])
        group = Group(search, batch, texts)
        self._advance(group, logits)
        running = self._running(group)
        if len(running):
            self._ready.append((group, running))

    def _read(self, texts: Sequence[Text]) -> tuple[np.ndarray, Batch]:
        """Return the logits after each prompt, and the batch to go on with."""
        prompts = []
        sources = []
        prefixes = []
        for text in texts:
            prompts.append(text.request.prompt)
            sources.append(text.request.source)
            prefixes.append(text.prefix)
        encoded = []
        if sources[0]:  # all of them have one, or none
            encoded = self._decoder.encode(sources, self._scheduler.pad_id)
        return self._decoder.start(prompts, encoded, prefixes)

    def _step(self, group: Group) -> Group | None:
        """Add a token to each text of a group; returns the group, None if that failed."""
        logits = self._try(group.texts, lambda: self._decoder.step(group.batch))
        if logits is None:
            return None
        self._advance(group, logits)
        return group

    def _try(self, texts: Sequence[Text], run: Callable[[], T]) -> T | None:
        """Run a part of the decoder for some texts; if that fails, generate each unfinished one again by itself.

        So the error becomes the result of the text at fault only, and the others are what they would have been.
        """
        try:
            return run()
        except SparkTasksError:
            raise
        except Exception as error:  # onnxruntime raises a family of its own, without a common parent
            reason = first_line(error)
        for text in texts:
            if text.number in self._results:
                continue
            if self._is_alone:
                self._results[text.number] = DataError(f"the model could not be run on this text: {reason}")
            else:
                self._results[text.number] = self._scheduler.run_alone(text.request)
        return None

    def _advance(self, group: Group, logits: np.ndarray) -> None:
        """Choose the next token of each text, and keep the results of those that are finished now."""
        for place, result in group.search.advance(logits, group.batch):
            # The rows of a finished text go on until they are dropped; only its first result counts.
            self._results.setdefault(group.texts[place].number, result)
