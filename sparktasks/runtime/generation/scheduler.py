"""Continuous batching: texts that are done make room for waiting ones, so that the decoder's runs stay full.

Where rows of unequal length cannot be decoded together, texts join only when they are as long as those that run.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from sparktasks.errors import DataError, SparkTasksError
from sparktasks.runtime.batching import token_batches
from sparktasks.runtime.generation.batch import Batch, merged
from sparktasks.runtime.generation.beams import BeamSearch
from sparktasks.runtime.generation.decoder import Decoder, Known
from sparktasks.runtime.generation.prefixes import Prefixes
from sparktasks.runtime.generation.search import LENGTH, Generated, Request, Rules, Sampling, Search

log = logging.getLogger(__name__)

Result = list[Generated] | Exception
T = TypeVar("T")

# What is done stays in a batch until no more than this share of it is at work: leaving it out costs a copy of the
# cache.
_SHRINK = 0.8

# New rows take the places of those that are done where the batch is not much wider than its longest row then.
_TIGHT = 0.75


@dataclass(frozen=True)
class Capacity:
    """How much runs at once: ``sequences`` rows, ``cache_tokens`` in the cache, ``run_tokens`` of prompts in one run.

    ``alone`` is one text at a time, and nothing shared between texts.
    """

    sequences: int
    cache_tokens: int
    run_tokens: int
    alone: bool = False


class Scheduler:
    """Generates texts with a decoder, as many at once as there is room for."""

    def __init__(
        self, decoder: Decoder, rules: Rules, capacity: Capacity, pad_id: int = 0, positions: int | None = None
    ) -> None:
        self.decoder, self.rules, self.capacity = decoder, rules, capacity
        self.pad_id, self.positions = pad_id, positions
        self.prefixes = Prefixes(decoder)

    def run(self, requests: Sequence[Request]) -> list[Result]:
        """Generate all texts; what goes wrong with one of them is its result."""
        if self.capacity.alone:
            return [self.run_alone(request) for request in requests]
        return _Run(self, requests, self._known(requests)).finish()

    def run_alone(self, request: Request) -> Result:
        """Generate a text by itself, with nothing that others left behind."""
        return _Run(self, [request], [None], alone=True).finish()[0]

    def _known(self, requests: Sequence[Request]) -> list[Known | None]:
        """Return what need not be read of each prompt: nothing where what prompts share cannot be read."""
        try:
            return self.prefixes.known([request.prompt for request in requests])
        except SparkTasksError:
            raise
        except Exception as error:  # onnxruntime raises a family of its own, without a common parent
            log.warning("a beginning that texts share could not be read: %s", _first_line(error))
            return [None] * len(requests)

    def search(self, requests: Sequence[Request]) -> Search:
        """Begin the search for some texts."""
        if self.rules.settings.num_beams > 1:
            return BeamSearch(requests, self.rules, self.decoder.slots)
        return Sampling(requests, self.rules)


@dataclass
class _Group:
    """Texts that are decoded together, by number; ``search.width`` rows of the batch belong to each."""

    search: Search
    batch: Batch
    numbers: np.ndarray

    def rows(self, places: np.ndarray) -> np.ndarray:
        width = self.search.width
        return (places[:, None] * width + np.arange(width)).ravel()


_Part = tuple[_Group, np.ndarray]  # some places of a group


class _Run:
    """One call's texts: those that wait, those that are decoded now, those that are done."""

    def __init__(
        self, scheduler: Scheduler, requests: Sequence[Request], known: list[Known | None], alone: bool = False
    ) -> None:
        self._scheduler, self._decoder, self._capacity = scheduler, scheduler.decoder, scheduler.capacity
        self._known, self._alone = known, alone
        self._requests, self._width = requests, scheduler.rules.settings.num_beams
        self._most = max(1, scheduler.capacity.sequences // self._width)
        self._results: dict[int, Result] = {}
        self._waiting = self._ordered()
        self._ready: list[tuple[_Group, int]] = []  # begun, and without a place yet

    def finish(self) -> list[Result]:
        group: _Group | None = None
        while self._waiting or self._ready or group is not None:
            group = self._refilled(group)
            if group is not None and not self._step(group):
                group = None
        return [self._results[number] for number in range(len(self._requests))]

    def _ordered(self) -> list[int]:
        """Return what waits, that which begins first last; what can never run is done."""
        waiting = []
        for number, request in enumerate(self._requests):
            needed = self._need(number) * self._width
            if request.limit <= 0:
                self._results[number] = [
                    Generated([], LENGTH, 0.0)
                ] * self._scheduler.rules.settings.num_return_sequences
            elif needed > self._capacity.cache_tokens:
                self._results[number] = DataError(
                    f"it needs room for {needed} tokens in a cache of {self._capacity.cache_tokens} (cacheTokens)"
                )
            else:
                waiting.append(number)
        if self._decoder.layout.aligns or self._decoder.layout.encoder is not None:
            return sorted(waiting, key=self._reads)
        return sorted(
            waiting, key=lambda number: -len(self._requests[number].prompt)
        )  # a group grows until longer prompts can join

    def _need(self, number: int) -> int:
        request = self._requests[number]
        return len(request.prompt) + len(request.source) + request.limit

    def _reads(self, number: int) -> int:
        """Return how many tokens must be read before a text begins."""
        request, known = self._requests[number], self._known[number]
        return len(request.source) + len(request.prompt) - (known.tokens if known else 0)

    # -- joining and leaving

    def _refilled(self, group: _Group | None) -> _Group | None:
        """Take waiting texts in where there is room, and drop the rows of those that are done, where that pays."""
        if group is None:
            return self._joined(self._admitted([], self._fitting(None)))
        running = self._running(group)
        fitting = self._fitting(group if len(running) else None)
        rare = (
            bool(fitting) and not self._decoder.layout.aligns and len(running) < self._most
        )  # who does not join now waits for long
        if len(running) == len(group.numbers) and not rare:
            return group
        few = len(running) <= _SHRINK * len(group.numbers) or self._has_outgrown(group)
        if not (few or self._ready or fitting):
            return group
        new = self._admitted(group.numbers[running].tolist(), fitting)
        if new and self._fits_in(group, running, new):
            return self._replaced(group, running, new)
        return self._joined([(group, running), *new]) if new or few else group

    def _running(self, group: _Group) -> np.ndarray:
        """Return the places of a group's texts that are not done."""
        return np.array([place for place, number in enumerate(group.numbers) if number not in self._results], np.int64)

    def _fitting(self, group: _Group | None) -> list[int]:
        """Return who may join a group, or begin one, the last first: where rows cannot differ in length, those as long
        as its rows."""
        if self._decoder.layout.aligns or not self._waiting:
            return self._waiting
        length = len(self._requests[self._waiting[-1]].prompt) if group is None else group.batch.history.width - 1
        return [number for number in self._waiting if len(self._requests[number].prompt) == length]

    def _has_outgrown(self, group: _Group) -> bool:
        """Tell whether a row, which must be done, has come to the end of the model's positions."""
        positions = self._scheduler.positions
        return positions is not None and int(group.batch.history.lengths.max()) >= positions

    def _fits_in(self, group: _Group, running: np.ndarray, new: list[_Part]) -> bool:
        """Tell whether new texts can take the places of those that are done, without a copy of the others' cache."""
        free, history = len(group.numbers) - len(running), group.batch.history
        lengths = [
            int(part.batch.history.lengths[part.rows(places)].max())
            for part, places in [(group, running), *new]
            if len(places)
        ]
        least = _TIGHT * history.width if self._decoder.layout.aligns else history.width
        fits = sum(len(places) for _, places in new) == free and least <= max(lengths) <= history.width
        return fits and not group.batch.source and not self._has_outgrown(group) and group.batch.on_cpu

    def _replaced(self, group: _Group, running: np.ndarray, new: list[_Part]) -> _Group:
        order, count = np.arange(len(group.numbers)), len(group.numbers)
        free = np.setdiff1d(order, running)
        for part, places in new:
            here, free = free[: len(places)], free[len(places) :]
            group.batch.put(self._decoder.slots, group.rows(here), part.batch, part.rows(places))
            group.search.join(part.search.take(places))
            group.numbers[here] = part.numbers[places]
            order[here] = count + np.arange(len(places))
            count += len(places)
        group.search = group.search.take(order)
        return group

    def _joined(self, parts: list[_Part]) -> _Group | None:
        """Put texts into one new group; one that has no others stays as it is."""
        parts = [(each, places) for each, places in parts if len(places)]
        if not parts:
            return None
        if len(parts) == 1 and len(parts[0][1]) == len(parts[0][0].numbers):
            return parts[0][0]
        searches = [each.search.take(places) for each, places in parts]
        for other in searches[1:]:
            searches[0].join(other)
        batch = merged(self._decoder.slots, [(each.batch, each.rows(places)) for each, places in parts])
        return _Group(searches[0], batch, np.concatenate([each.numbers[places] for each, places in parts]))

    def _admitted(self, running: list[int], fitting: list[int]) -> list[_Part]:
        """Return as many texts that are begun as there is room for.

        Where rows of any length can join, more are begun than have a place yet: prompts that are read together cost
        less.
        """
        free = self._most - len(running)
        if len(self._ready) < free:
            ahead = self._decoder.layout.aligns and bool(running)
            for group in self._begin(
                running + [int(group.numbers[place]) for group, place in self._ready],
                fitting,
                self._most if ahead else free,
            ):
                self._ready += [(group, place) for place in self._running(group).tolist()]
        taken, self._ready = self._ready[:free], self._ready[free:]
        groups = {id(group): group for group, _ in taken}
        return [
            (group, np.array([place for other, place in taken if other is group], np.int64))
            for group in groups.values()
        ]

    def _begin(self, begun: list[int], fitting: list[int], most: int) -> list[_Group]:
        """Begin at most so many of the fitting texts, the last first, as far as the cache has room beside those that
        are begun."""
        widest = max(map(self._need, begun), default=0)
        chosen: list[int] = []
        for number in reversed(fitting):
            count = len(begun) + len(chosen) + 1
            widest = max(widest, self._need(number))
            if len(chosen) == most or (count > 1 and count * self._width * widest > self._capacity.cache_tokens):
                break
            chosen.append(number)
        if not chosen:
            return []
        leaving = set(chosen)
        self._waiting = [number for number in self._waiting if number not in leaving]
        batches = token_batches([self._reads(number) for number in chosen], self._capacity.run_tokens)
        groups = [self._begun(np.array(chosen)[places]) for places in batches]
        return [group for group in groups if group is not None]

    def _begun(self, numbers: np.ndarray) -> _Group | None:
        """Read the sources and prompts of some texts, and choose their first tokens; None where that failed."""
        requests = [self._requests[number] for number in numbers]
        read = self._tried(numbers.tolist(), lambda: self._read(requests, [self._known[number] for number in numbers]))
        if read is None:
            return None
        logits, batch = read
        if self._width > 1:
            rows = np.repeat(np.arange(len(requests)), self._width)
            logits, batch = logits[rows], merged(self._decoder.slots, [(batch, rows)])
        group = _Group(self._scheduler.search(requests), batch, numbers)
        self._advance(group, logits)
        return group

    def _read(self, requests: Sequence[Request], known: Sequence[Known | None]) -> tuple[np.ndarray, Batch]:
        sources = [request.source for request in requests]
        source = self._decoder.encode(sources, self._scheduler.pad_id) if sources[0] else []
        return self._decoder.start([request.prompt for request in requests], source, known)

    # -- going on

    def _step(self, group: _Group) -> bool:
        """Add a token to each text of a group; False where that failed, and the group is no more."""
        numbers = group.numbers[self._running(group)].tolist()
        logits = self._tried(numbers, lambda: self._decoder.step(group.batch))
        if logits is None:
            return False
        self._advance(group, logits)
        return True

    def _tried(self, numbers: Iterable[int], run: Callable[[], T]) -> T | None:
        """Run a part of the decoder for some texts; where that fails, generate each of them again by itself.

        So the error is that of the text at fault, and the others are what they would have been.
        """
        try:
            return run()
        except SparkTasksError:
            raise
        except Exception as error:  # onnxruntime raises a family of its own, without a common parent
            reason = _first_line(error)
        for number in numbers:
            if self._alone:
                self._results[number] = DataError(f"the model could not be run on this text: {reason}")
            else:
                self._results[number] = self._scheduler.run_alone(self._requests[number])
        return None

    def _advance(self, group: _Group, logits: np.ndarray) -> None:
        for place, result in group.search.advance(logits, group.batch):
            self._results.setdefault(int(group.numbers[place]), result)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
