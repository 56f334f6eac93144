"""Stop strings: a text ends with the token that completes one."""

from __future__ import annotations

from collections.abc import Sequence

from sparktasks.runtime.generation.prefixes import common_length
from sparktasks.runtime.generation.tokenizer import GenerationTokenizer


class StopStrings:
    """Finds out whether the last token of a text completes a stop string, which may end anywhere in the token."""

    def __init__(self, strings: Sequence[str], tokenizer: GenerationTokenizer) -> None:
        self._strings = strings
        self._tokenizer = tokenizer
        self.tokens = max(len(string.encode()) for string in strings) + 1  # a token is at least one byte

    def __call__(self, ids: list[int]) -> bool:
        text = self._tokenizer.decode(ids, special=True)
        text_before = self._tokenizer.decode(ids[:-1], special=True)
        # The new token may change characters before it, if the bytes of one are spread over several tokens.
        unchanged = common_length(text, text_before)
        for string in self._strings:
            start = max(0, unchanged - len(string) + 1)
            if string in text[start:]:
                return True
        return False
