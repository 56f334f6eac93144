"""Runs a decoder's graphs: whole prompts first, then a token at a time; the cache stays in onnxruntime's own
tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from sparktasks.runtime.batching import pad
from sparktasks.runtime.bundle import Bundle
from sparktasks.runtime.devices import CPU
from sparktasks.runtime.generation.batch import Batch, History, columns, merged
from sparktasks.runtime.generation.decoder_graphs import BRANCH, EMBEDS, HIDDEN, HIDDEN_MASK, IDS, LAST_LOGITS
from sparktasks.runtime.generation.layout import Layout, Slot, read_layout
from sparktasks.runtime.session import RUN_SECONDS, Session, Tensor, open_session, tensor, view

_ROOM = 64  # a cache that is written in place grows by so many columns


@dataclass(frozen=True)
class CachedPrefix:
    """How many of a prompt's first tokens were read before, and the batch of one row whose cache holds them."""

    batch: Batch
    tokens: int


class Decoder:
    """A decoder on this machine, and the encoder before it if the model has one."""

    def __init__(
        self,
        bundle: Bundle,
        device: str = "auto",
        piece: int = 512,
        run_seconds: float = RUN_SECONDS,
    ) -> None:
        self.layout: Layout = read_layout(bundle)
        self.slots = self.layout.slots
        self._piece = piece
        self._prompt_session = open_session(self.layout.prompt_graph, device, run_seconds)
        self._step_session: Session | None = None
        self._encoder: Session | None = None
        self._embed: Session | None = None
        if self.layout.step_graph is not None:
            self._step_session = open_session(self.layout.step_graph, device, run_seconds)
        if self.layout.encoder is not None:
            self._encoder = open_session(self.layout.encoder, device, run_seconds)
        if self.layout.embed is not None:
            self._embed = open_session(self.layout.embed, device, run_seconds)

    # -- the source

    def encode(self, rows: Sequence[Sequence[int]], pad_id: int) -> list[Tensor]:
        """Run the encoder; returns its states ``(rows, tokens, hidden)`` and their mask."""
        assert self._encoder is not None
        mask = tensor(pad([[1] * len(row) for row in rows], 0))
        feeds = {"input_ids": tensor(pad(rows, pad_id))}
        if "attention_mask" in self._encoder.inputs:
            feeds["attention_mask"] = mask
        (states,) = self._encoder.run_tensors(feeds, self._encoder.outputs[:1])
        return [_as_type(states, self._prompt_session.inputs[HIDDEN]), mask]

    # -- the text

    def start(
        self,
        prompts: Sequence[Sequence[int]],
        source: list[Tensor],
        prefixes: Sequence[CachedPrefix | None] = (),
    ) -> tuple[np.ndarray, Batch]:
        """Read prompts; returns the logits after each, ``(rows, vocabulary)``, and the batch to go on with.

        ``prefixes`` holds, for each prompt, what was read of it before.
        """
        if self.layout.begins_left and len(prompts) > 1:
            return self._start_by_length(prompts, prefixes or [None] * len(prompts))
        return self._start(prompts, source, prefixes)

    def _start(
        self,
        prompts: Sequence[Sequence[int]],
        source: list[Tensor],
        prefixes: Sequence[CachedPrefix | None],
    ) -> tuple[np.ndarray, Batch]:
        history = History.of(prompts)
        batch = Batch(history, [tensor(slot.empty(len(prompts))) for slot in self.slots], source)
        begin = 0
        if any(prefixes):
            begin = self._reuse(batch, prefixes)
        if self.layout.extends:
            # Long prompts are read in pieces, which bounds the memory of a run.
            while begin + self._piece < history.width:
                end = begin + self._piece
                self._run(self._prompt_session, batch, begin, end, is_prompt=True)
                begin = end
        logits = self._run(self._prompt_session, batch, begin, history.width, is_prompt=True)
        return logits, batch

    def _start_by_length(
        self,
        prompts: Sequence[Sequence[int]],
        prefixes: Sequence[CachedPrefix | None],
    ) -> tuple[np.ndarray, Batch]:
        """Read prompts of equal length together, then merge all of them for the steps that follow.

        onnxruntime's grouped-query attention takes no padding before a text; and after a cache, it takes several
        tokens of one text only.
        """
        rows_by_length: dict[tuple[int, int], list[int]] = {}
        for row, prompt in enumerate(prompts):
            key = len(prompt), -1
            if prefixes[row] is not None or len(prompt) > self._piece:
                key = len(prompt), row  # it is read after a cache, so it is read alone
            rows_by_length.setdefault(key, []).append(row)

        logits: list[np.ndarray] = []
        parts: list[tuple[Batch, np.ndarray]] = []
        order: list[int] = []
        for rows in rows_by_length.values():
            part_logits, batch = self._start(
                [prompts[row] for row in rows],
                source=[],
                prefixes=[prefixes[row] for row in rows],
            )
            logits.append(part_logits)
            parts.append((batch, np.arange(len(rows))))
            order += rows
        whole = merged(self.slots, parts)
        original_order = np.argsort(order)
        whole.reorder(self.slots, original_order)
        return np.concatenate(logits)[original_order], whole

    def step(self, batch: Batch) -> np.ndarray:
        """Read the last token of each row; returns the logits after it, ``(rows, vocabulary)``."""
        width = batch.history.width
        if self._step_session is None:  # no cache: the whole text is read again
            return self._run(self._prompt_session, batch, 0, width, is_prompt=True)
        return self._run(self._step_session, batch, width - 1, width, is_prompt=False)

    def _reuse(self, batch: Batch, prefixes: Sequence[CachedPrefix | None]) -> int:
        """Copy what was read before into the cache; returns the first column that must be read."""
        lengths = batch.history.lengths
        known = np.zeros(len(prefixes), np.int64)
        for row, prefix in enumerate(prefixes):
            if prefix is not None:
                known[row] = prefix.tokens
        # All rows are read from the same column on: the row with the most unread tokens decides how many of their
        # known tokens the others can use.
        unread = int(np.maximum(lengths - known, 1).max())
        reused = np.maximum(lengths - unread, 0)
        begin = int(batch.history.width - unread)
        for place, slot in enumerate(self.slots):
            target = _zeros(slot, len(batch), begin)
            for row, prefix in enumerate(prefixes):
                if prefix is None or not reused[row]:
                    continue
                cached = view(prefix.batch.cache[place])
                columns(target[row : row + 1], slot.columns, begin - reused[row], begin)[:] = columns(
                    cached, slot.columns, 0, reused[row]
                )
            batch.cache[place] = tensor(target)
        return begin

    def _run(
        self,
        session: Session,
        batch: Batch,
        begin: int,
        end: int,
        is_prompt: bool,
    ) -> np.ndarray:
        """Run the columns from ``begin`` to ``end``; those before are in the cache.

        Returns the logits after the last column, ``(rows, vocabulary)``, float32.
        """
        # The keys of the encoder's states are computed once: no step writes them.
        places = [place for place, slot in enumerate(self.slots) if is_prompt or not slot.is_cross]
        outputs = ["logits", *(self.slots[place].present for place in places)]
        if self.layout.begins_left and 0 < begin == end - 1 and session.provider == CPU:
            # Grouped-query attention on the CPU writes the new keys behind the old ones, instead of copying all.
            self._make_room(batch, end)
            feeds = self._feeds(session, batch, begin, end, is_prompt)
            into = dict(zip(outputs[1:], batch.cache, strict=True))
            logits = session.run_tensors(feeds, outputs, into)[0]
        else:
            feeds = self._feeds(session, batch, begin, end, is_prompt)
            logits, *cache = session.run_tensors(feeds, outputs)
            for place, value in zip(places, cache, strict=True):
                batch.cache[place] = value
        return view(logits)[:, -1].astype(np.float32, copy=False)

    def _make_room(self, batch: Batch, end: int) -> None:
        """Widen the cache to at least so many columns; those that hold nothing yet are at the right."""
        for place, slot in enumerate(self.slots):
            value = view(batch.cache[place])
            width = value.shape[slot.columns]
            if width < end:
                wider = _zeros(slot, len(batch), -(-end // _ROOM) * _ROOM)
                columns(wider, slot.columns, 0, width)[:] = value
                batch.cache[place] = tensor(wider)

    # -- what the graphs read

    def _feeds(
        self,
        session: Session,
        batch: Batch,
        begin: int,
        end: int,
        is_prompt: bool,
    ) -> dict[str, Tensor]:
        """Return the inputs that a graph asks for, to read the columns from ``begin`` to ``end``."""
        types = session.inputs
        feeds: dict[str, Tensor] = {}
        if self.slots and self.slots[0].past in types:
            for slot, value in zip(self.slots, batch.cache, strict=True):
                feeds[slot.past] = value
        for name, value in zip((HIDDEN, HIDDEN_MASK), batch.source, strict=False):
            if name in types:
                feeds[name] = value
        for name, array in self._arrays(types, batch.history, begin, end).items():
            feeds[name] = tensor(array.astype(types[name], copy=False))
        if BRANCH in types:  # a merged decoder: which of its two branches to take
            feeds[BRANCH] = tensor(np.array([not is_prompt], types[BRANCH]))
        if EMBEDS in types:
            feeds[EMBEDS] = self._embedded(batch.history.ids[:, begin:end], types[EMBEDS])
        return feeds

    def _arrays(
        self,
        types: Mapping[str, Any],
        history: History,
        begin: int,
        end: int,
    ) -> dict[str, np.ndarray]:
        """Return the inputs that follow from the tokens."""
        arrays = {name: history.ids[:, begin:end] for name in IDS if name in types}
        if "attention_mask" in types:
            if self.layout.begins_left:
                arrays["attention_mask"] = np.arange(end) < history.lengths[:, None]
            else:
                arrays["attention_mask"] = history.mask()[:, :end]
        if "position_ids" in types:
            positions = np.maximum(np.arange(begin, end) - history.starts[:, None], 0)
            if self._position_axes:
                positions = np.stack([positions] * self._position_axes)
            arrays["position_ids"] = positions
        if LAST_LOGITS in types:
            arrays[LAST_LOGITS] = np.ones(self._last_logits_shape)
        return arrays

    def _embedded(self, ids: np.ndarray, dtype: type) -> Tensor:
        """Turn ids ``(rows, columns)`` into vectors."""
        assert self._embed is not None
        (input_name,) = self._embed.inputs
        (vectors,) = self._embed.run_tensors({input_name: tensor(ids)}, self._embed.outputs[:1])
        return _as_type(vectors, dtype)

    @cached_property
    def _last_logits_shape(self) -> tuple[int, ...]:
        """The shape of the input that says for how many last tokens logits are computed."""
        return (1,) * len(self.layout.shape_of(LAST_LOGITS))

    @cached_property
    def _position_axes(self) -> int:
        """How many kinds of positions there are (time, height, width of images), which are all alike for text; 0 if
        positions have no axis for them."""
        shape = self.layout.shape_of("position_ids")
        if len(shape) != 3:
            return 0
        return int(shape[0])


def _zeros(slot: Slot, rows: int, width: int) -> np.ndarray:
    """Return one tensor of a cache with so many columns, all zero."""
    shape = list(slot.empty(rows).shape)
    shape[slot.columns] = width
    return np.zeros(shape, slot.dtype)


def _as_type(value: Tensor, dtype: type) -> Tensor:
    """Return a tensor in the type that another graph expects: the graphs of a folder may differ in precision."""
    array = view(value)
    if array.dtype == dtype:
        return value
    return tensor(array.astype(dtype))
