"""The texts of a call that have not begun: which of them comes next, and how many the cache has room for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sparktasks.runtime.generation.decoder import CachedPrefix
from sparktasks.runtime.generation.layout import Layout
from sparktasks.runtime.generation.search import Request


@dataclass(frozen=True)
class Text:
    """A text of a call: its number, what is asked for, and what was read of its prompt before."""

    number: int
    request: Request
    prefix: CachedPrefix | None = None

    @property
    def prompt_tokens(self) -> int:
        """The number of tokens that the decoder reads first."""
        return len(self.request.prompt)

    @property
    def cache_tokens(self) -> int:
        """The most tokens that one row of it takes in the cache."""
        return self.prompt_tokens + len(self.request.source) + self.request.limit

    @property
    def unread_tokens(self) -> int:
        """How many tokens must be read before its first token is generated."""
        unread = self.prompt_tokens + len(self.request.source)
        if self.prefix is not None:
            unread -= self.prefix.tokens
        return unread


class Waiting:
    """Texts that have not begun; ``rows`` is the number of rows that each will have, ``cache_tokens`` the room for the
    rows of all texts that run at once."""

    def __init__(
        self,
        texts: Sequence[Text],
        layout: Layout,
        rows: int,
        cache_tokens: int,
    ) -> None:
        self._rows = rows
        self._cache_tokens = cache_tokens
        self._mixes_lengths = layout.aligns
        # The next text stands last. Texts that take equally long to read come together; but where a text joins only
        # when the running ones have grown to the length of its prompt, the shortest prompts must begin.
        if layout.aligns or layout.encoder is not None:
            self._texts = sorted(texts, key=lambda text: text.unread_tokens)
        else:
            self._texts = sorted(texts, key=lambda text: -text.prompt_tokens)

    def __len__(self) -> int:
        return len(self._texts)

    def fitting(self, length: int | None) -> list[Text]:
        """Return the texts that may join others that have so many tokens, the next one last.

        None stands for no others: then those that may begin together.
        """
        if self._mixes_lengths or not self._texts:
            return self._texts
        if length is None:
            length = self._texts[-1].prompt_tokens
        return [text for text in self._texts if text.prompt_tokens == length]

    def take(self, fitting: Sequence[Text], begun: Sequence[Text], most: int) -> list[Text]:
        """Remove and return at most so many of the fitting texts, the next one first, as far as the cache has room for
        them beside those that have begun."""
        # A batch of rows is as wide as the widest of them.
        widest = max((text.cache_tokens for text in begun), default=0)
        taken: list[Text] = []
        for text in reversed(fitting):
            if len(taken) == most:
                break
            widest = max(widest, text.cache_tokens)
            count = len(begun) + len(taken) + 1
            # A text that is too large for the cache is refused before; alone, any other has room.
            if count > 1 and count * self._rows * widest > self._cache_tokens:
                break
            taken.append(text)
        if taken:
            numbers = {text.number for text in taken}
            self._texts = [text for text in self._texts if text.number not in numbers]
        return taken
