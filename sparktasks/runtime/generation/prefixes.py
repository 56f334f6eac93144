"""Prefixes that prompts share, such as an instruction before every row, are read once and kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock

from sparktasks.runtime.generation.batch import Batch
from sparktasks.runtime.generation.decoder import CachedPrefix, Decoder

_SHORTEST = 16  # tokens; a shorter prefix is not worth keeping
_KEPT = 4

_Tokens = tuple[int, ...]


class Prefixes:
    """The prefixes that a decoder read last; the least recently used is dropped first."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._lock = Lock()
        self._kept: OrderedDict[_Tokens, Batch] = OrderedDict()

    def find(self, prompts: Sequence[_Tokens]) -> list[CachedPrefix | None]:
        """Return what need not be read of each prompt, after reading what several of them share."""
        if not self._decoder.layout.extends:
            return [None] * len(prompts)
        alike: dict[_Tokens, list[_Tokens]] = {}
        for prompt in prompts:
            if len(prompt) > _SHORTEST:
                alike.setdefault(prompt[:_SHORTEST], []).append(prompt)

        shared: dict[_Tokens, tuple[_Tokens, Batch]] = {}
        with self._lock:  # several threads may share a generator
            for start, group in alike.items():
                # What the first and the last in order share, all in between share too.
                lowest, highest = min(group), max(group)
                prefix = self._read(lowest[: common_length(lowest, highest)], len(group))
                if prefix is not None:
                    shared[start] = prefix
        return [_usable(shared.get(prompt[:_SHORTEST]), prompt) for prompt in prompts]

    def _read(self, common: _Tokens, prompts: int) -> tuple[_Tokens, Batch] | None:
        """Return the kept prefix that is most like what so many prompts have in common; read that if it pays."""
        best = max(self._kept, key=lambda kept: common_length(kept, common), default=())
        enough = len(common)
        if prompts == 1:
            enough = _SHORTEST
        if common_length(best, common) < enough:
            if prompts == 1:
                return None  # nobody else would use it
            best = common
            _, self._kept[best] = self._decoder.start([common], [])
        self._kept.move_to_end(best)
        batch = self._kept[best]
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return best, batch


def _usable(prefix: tuple[_Tokens, Batch] | None, prompt: _Tokens) -> CachedPrefix | None:
    """Return what a prompt can use of a prefix: at least its last token must be read, for the logits after it."""
    if prefix is None:
        return None
    ids, batch = prefix
    return CachedPrefix(batch, min(common_length(ids, prompt), len(prompt) - 1))


def common_length(first: Sequence[object], second: Sequence[object]) -> int:
    """Return how many tokens, or characters, two texts have in common at their beginning."""
    count = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        count += 1
    return count
