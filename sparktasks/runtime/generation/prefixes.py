"""Beginnings that prompts share, such as an instruction before every row, are read once and kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock

from sparktasks.runtime.generation.batch import Batch
from sparktasks.runtime.generation.decoder import Decoder, Known

_SHORTEST = 16
_KEPT = 4


class Prefixes:
    """The last few beginnings that a decoder read; one that is not used goes first."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._lock = Lock()
        self._kept: OrderedDict[tuple[int, ...], Batch] = OrderedDict()

    def known(self, prompts: Sequence[tuple[int, ...]]) -> list[Known | None]:
        """Return what need not be read of each prompt, reading first what several of them share."""
        if not self._decoder.layout.extends:
            return [None] * len(prompts)
        with self._lock:  # several threads may share a generator
            return self._known(prompts)

    def _known(self, prompts: Sequence[tuple[int, ...]]) -> list[Known | None]:
        alike: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
        for prompt in prompts:
            if len(prompt) > _SHORTEST:
                alike.setdefault(prompt[:_SHORTEST], []).append(prompt)
        shared = {
            start: self._read(min(group)[: _common(min(group), max(group))], len(group))
            for start, group in alike.items()
        }
        return [_usable(shared.get(prompt[:_SHORTEST]), prompt) for prompt in prompts]

    def _read(self, common: tuple[int, ...], prompts: int) -> tuple[tuple[int, ...], Batch] | None:
        """Find what begins like ``common`` among what was read, else read it if it is worth it."""
        best = max(self._kept, key=lambda kept: _common(kept, common), default=())
        if _common(best, common) < (len(common) if prompts > 1 else _SHORTEST):
            if prompts == 1:
                return None
            best = common
            self._kept[best] = self._decoder.start([common], [])[1]
        self._kept.move_to_end(best)
        found = self._kept[best]
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return best, found


def _usable(found: tuple[tuple[int, ...], Batch] | None, prompt: tuple[int, ...]) -> Known | None:
    """Of a prompt at least the last token must be read: its logits are wanted."""
    if found is None:
        return None
    ids, batch = found
    return Known(batch, min(_common(ids, prompt), len(prompt) - 1))


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """Return how many tokens two texts have in common at their beginning."""
    return next(
        (place for place, (one, other) in enumerate(zip(first, second, strict=False)) if one != other),
        min(len(first), len(second)),
    )
