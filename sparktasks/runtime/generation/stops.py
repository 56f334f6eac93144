"""Stop strings: a text ends with the token that completes one."""

from __future__ import annotations

from collections.abc import Sequence

from sparktasks.runtime.generation.tokenizer import GenerationTokenizer


class StopStrings:
    """Tells whether the last token of a text completes a stop string, wherever in the token that is."""

    def __init__(self, strings: Sequence[str], tokenizer: GenerationTokenizer) -> None:
        self._strings, self._tokenizer = strings, tokenizer
        self.tokens = max(len(string.encode()) for string in strings) + 1  # a token is a byte at least

    def __call__(self, ids: list[int]) -> bool:
        text, before = (self._tokenizer.decode(part, special=True) for part in (ids, ids[:-1]))
        old = next(
            (place for place, (one, other) in enumerate(zip(text, before, strict=False)) if one != other),
            min(len(text), len(before)),
        )
        return any(string in text[max(0, old - len(string) + 1) :] for string in self._strings)
