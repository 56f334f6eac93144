"""Runs a decoder's graphs: prompts at once, then a token at a time, the cache staying in onnxruntime's own tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sparktasks.runtime.batching import pad
from sparktasks.runtime.bundle import Bundle
from sparktasks.runtime.devices import CPU
from sparktasks.runtime.generation.batch import Batch, History, columns, merged
from sparktasks.runtime.generation.layout import (
    BRANCH,
    EMBEDS,
    HIDDEN,
    HIDDEN_MASK,
    IDS,
    LAST_LOGITS,
    Layout,
    read_layout,
)
from sparktasks.runtime.session import RUN_SECONDS, Session, Tensor, open_session, tensor, view

_ROOM = 64  # columns by which a cache grows that is written in place


@dataclass(frozen=True)
class Known:
    """How many of a prompt's first tokens were read before, and the batch of one row whose cache holds them."""

    batch: Batch
    tokens: int


class Decoder:
    """A decoder on this machine, and the encoder before it where there is one."""

    def __init__(
        self, bundle: Bundle, device: str = "auto", piece: int = 512, run_seconds: float = RUN_SECONDS
    ) -> None:
        self.layout: Layout = read_layout(bundle)
        self.slots = self.layout.slots
        self._first = open_session(self.layout.first, device, run_seconds)
        others = (self.layout.later, self.layout.encoder, self.layout.embed)
        self._later, self._encoder, self._embed = (
            None if other is None else open_session(other, device, run_seconds) for other in others
        )
        self._piece = piece

    # -- the source

    def encode(self, rows: Sequence[Sequence[int]], pad_id: int) -> list[Tensor]:
        """Run the encoder; returns its states ``(rows, tokens, hidden)`` and their mask."""
        assert self._encoder is not None
        feeds = {"input_ids": pad(rows, pad_id), "attention_mask": pad([[1] * len(row) for row in rows], 0)}
        states = self._encoder.run_tensors(
            {name: tensor(feeds[name]) for name in self._encoder.inputs}, self._encoder.outputs[:1]
        )[0]
        return [_typed(states, self._first.inputs.get(HIDDEN)), tensor(feeds["attention_mask"])]

    # -- the text

    def start(
        self, prompts: Sequence[Sequence[int]], source: list[Tensor], known: Sequence[Known | None] = ()
    ) -> tuple[np.ndarray, Batch]:
        """Read prompts; returns the logits after each, ``(rows, vocabulary)``, and the batch to go on with.

        ``known`` says how many of a prompt's first tokens were read before, and by which batch.
        """
        if self.layout.begins_left and len(prompts) > 1:
            return self._start_apart(prompts, known or [None] * len(prompts))
        return self._start(prompts, source, known)

    def _start(
        self, prompts: Sequence[Sequence[int]], source: list[Tensor], known: Sequence[Known | None]
    ) -> tuple[np.ndarray, Batch]:
        history = History.of(prompts)
        batch = Batch(history, [tensor(slot.empty(len(prompts))) for slot in self.slots], source)
        begin = self._reuse(batch, known) if any(known) else 0
        stops = [*range(begin + self._piece, history.width, self._piece)] if self.layout.extends else []
        logits = np.empty((0, 0))
        for stop in [*stops, history.width]:
            logits = self._run(self._first, batch, begin, stop, first=True)
            begin = stop
        return logits, batch

    def _start_apart(self, prompts: Sequence[Sequence[int]], known: Sequence[Known | None]) -> tuple[np.ndarray, Batch]:
        """Read prompts by length, and put them together for what follows: onnxruntime's grouped-query attention takes
        no pads before a text, and behind a cache several tokens of one text only."""
        alike: dict[tuple[int, int], list[int]] = {}
        for row, prompt in enumerate(prompts):
            alone = known[row] is not None or len(prompt) > self._piece
            alike.setdefault((len(prompt), row if alone else -1), []).append(row)
        logits, parts = [], []
        for rows in alike.values():
            found, batch = self._start([prompts[row] for row in rows], [], [known[row] for row in rows])
            logits.append(found)
            parts.append((batch, np.arange(len(rows))))
        whole, order = merged(self.slots, parts), np.argsort([row for rows in alike.values() for row in rows])
        whole.reorder(self.slots, order)
        return np.concatenate(logits)[order], whole

    def step(self, batch: Batch) -> np.ndarray:
        """Read the last token of each row; returns the logits after it, ``(rows, vocabulary)``."""
        width = batch.history.width
        if self._later is None:
            return self._run(self._first, batch, 0, width, first=True)
        return self._run(self._later, batch, width - 1, width, first=False)

    def _reuse(self, batch: Batch, known: Sequence[Known | None]) -> int:
        """Put what was read before into the cache; returns the column from which on there is something to read."""
        lengths = batch.history.lengths
        shared = np.array([0 if each is None else each.tokens for each in known])
        rest = int(np.maximum(lengths - shared, 1).max())
        takes = np.maximum(lengths - rest, 0)  # tokens of each row that lie before the common rest
        begin = batch.history.width - rest
        for place, slot in enumerate(self.slots):
            shape = list(slot.empty(len(batch)).shape)
            shape[slot.columns] = begin
            out: np.ndarray = np.zeros(shape, slot.dtype)
            for row, each in enumerate(known):
                if each is not None and takes[row]:
                    columns(out[row : row + 1], slot.columns, begin - takes[row], begin)[:] = columns(
                        view(each.batch.cache[place]), slot.columns, 0, takes[row]
                    )
            batch.cache[place] = tensor(out)
        return int(begin)

    def _run(self, session: Session, batch: Batch, begin: int, end: int, first: bool) -> np.ndarray:
        """Run the columns from ``begin`` to ``end``; what lies before is in the cache."""
        shares = self.layout.begins_left and 0 < begin == end - 1 and session.provider == CPU
        if shares:
            self._make_room(batch, end)
        feeds = self._feeds(session, batch, begin, end, first)
        grown = [place for place, slot in enumerate(self.slots) if first or not slot.is_cross]
        outputs = ["logits", *(self.slots[place].present for place in grown)]
        into = (
            dict(zip(outputs[1:], batch.cache, strict=True)) if shares else None
        )  # the new keys are written behind the old ones
        logits, *cache = session.run_tensors(feeds, outputs, into)
        if into is None:  # else the cache is where it was, in memory that its own tensors keep
            for place, value in zip(grown, cache, strict=True):
                batch.cache[place] = value
        return view(logits)[:, -1].astype(np.float32, copy=False)

    def _make_room(self, batch: Batch, end: int) -> None:
        """Let the cache have at least so many columns; those that hold nothing yet are at the right."""
        for place, slot in enumerate(self.slots):
            value, axis = view(batch.cache[place]), slot.columns
            if value.shape[axis] < end:
                shape = list(value.shape)
                shape[axis] = -(-end // _ROOM) * _ROOM
                wider: np.ndarray = np.zeros(shape, slot.dtype)
                columns(wider, axis, 0, value.shape[axis])[:] = value
                batch.cache[place] = tensor(wider)

    def _feeds(self, session: Session, batch: Batch, begin: int, end: int, first: bool) -> dict[str, Tensor]:
        history, names = batch.history, session.inputs
        feeds = (
            dict(zip((slot.past for slot in self.slots), batch.cache, strict=True)) if self._has_past(session) else {}
        )
        read = dict.fromkeys(IDS, history.ids[:, begin:end])
        if "attention_mask" in names:
            begins_left = self.layout.begins_left
            read["attention_mask"] = (
                (np.arange(end) < history.lengths[:, None]) if begins_left else history.mask()[:, :end]
            )
        if "position_ids" in names:
            places = np.maximum(np.arange(begin, end) - history.starts[:, None], 0)
            read["position_ids"] = np.stack([places] * self._position_axes) if self._position_axes else places
        if BRANCH in names:
            read[BRANCH] = np.array([not first])
        if LAST_LOGITS in names:
            read[LAST_LOGITS] = np.ones(self._last_shape)
        feeds |= {name: tensor(array.astype(names[name], copy=False)) for name, array in read.items() if name in names}
        feeds |= {
            name: value for name, value in zip((HIDDEN, HIDDEN_MASK), batch.source, strict=False) if name in names
        }
        if EMBEDS in names:
            assert self._embed is not None
            vectors = self._embed.run_tensors({self._ids: tensor(read[IDS[0]])}, self._embed.outputs[:1])[0]
            feeds[EMBEDS] = _typed(vectors, names[EMBEDS])
        return feeds

    def _has_past(self, session: Session) -> bool:
        return bool(self.slots) and self.slots[0].past in session.inputs

    @cached_property
    def _ids(self) -> str:
        """The input of the graph that turns ids into vectors."""
        return next(iter(self._embed.inputs)) if self._embed else ""

    @cached_property
    def _last_shape(self) -> tuple[int, ...]:
        """The shape of the input that says how many last logits are wanted."""
        return tuple(1 for _ in self.layout.shape_of(LAST_LOGITS))

    @cached_property
    def _position_axes(self) -> int:
        """How many axes of positions are told apart (time, height, width of what is seen): of text all are alike. 0:
        positions have none."""
        shape = self.layout.shape_of("position_ids")
        return int(shape[0]) if len(shape) == 3 else 0


def _typed(value: Tensor, wanted: type | None) -> Tensor:
    """Return a tensor in the type that another graph wants: precisions of a folder's graphs may differ."""
    found = view(value)
    return value if wanted is None or found.dtype == wanted else tensor(found.astype(wanted))
