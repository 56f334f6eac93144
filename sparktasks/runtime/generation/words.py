"""Words that a text must not contain, or should contain: rules on the text itself, however its tokens spell it.

A token completes a word if the text so far, with the token behind it, contains the word, and the word ends in the
token. Words have borders: "scan" and "Canada" do not contain the words "can" and "Can".
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sparktasks.runtime.generation.processors import Processor, Progress
from sparktasks.runtime.generation.token_bytes import TokenBytes

_LONGEST_CHARACTER = 4  # bytes in UTF-8

# Characters of scripts that are written without spaces between words.
_WITHOUT_SPACES = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0xA9E0, 0xA9FF),
    (0xAA60, 0xAA7F),
    (0x1780, 0x17FF),  # Khmer
    (0x19E0, 0x19FF),
    (0x3040, 0x30FF),  # Kana
    (0x31F0, 0x31FF),
    (0xFF66, 0xFF9F),
    (0x2E80, 0x2FDF),  # Han
    (0x3005, 0x3007),
    (0x3021, 0x3029),
    (0x3038, 0x303B),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)


@dataclass(frozen=True)
class Words:
    """What settings say in words: forbidden ones, and additions to the scores of others."""

    bad: tuple[str, ...] = ()
    bias: tuple[tuple[str, float], ...] = ()

    def values(self) -> list[tuple[str, float]]:
        """Return what is added to the score of a token that completes each word."""
        values = list(self.bias)
        values += [(word, -np.inf) for word in self.bad]
        return values


NO_WORDS = Words()


class BiasWords(Processor):
    """Adds to the scores of tokens that would complete a word; minus infinity forbids it.

    ``reads_prompt`` says that a word may begin in the prompt: the text continues it.
    """

    def __init__(self, words: Words, tokens: TokenBytes, reads_prompt: bool) -> None:
        self._words = words.values()
        self._tokens = tokens
        self._reads_prompt = reads_prompt
        # The most bytes that a word can have before its last token, and a character before them for its border.
        self._reach = max(len(word.encode()) for word, _ in self._words) - 1 + _LONGEST_CHARACTER
        self._completions: _Completions | None = None  # found at first use: scores tell how wide they are

    def __call__(self, progress: Progress, scores: np.ndarray) -> None:
        if self._completions is None:
            self._completions = _find_completions(self._words, self._tokens, scores.shape[1])
        completions = self._completions
        ends = [self._end(progress, row) for row in range(len(scores))]
        at_border = [row for row, end in enumerate(ends) if _is_border(end)]
        completions.anywhere.add(scores, np.arange(len(scores)))
        completions.behind_border.add(scores, np.array(at_border, int))
        for row, end in enumerate(ends):
            for additions in completions.of_begun_words(end):
                scores[row, additions.ids] += additions.values

    def _end(self, progress: Progress, row: int) -> bytes:
        """Return the last bytes of a row's text, as far as they may be the beginning of a word.

        Special tokens are left out of the new text, but nothing is joined across those of the prompt.
        """
        history = progress.history
        tokens = self._tokens
        count = self._reach
        new = int(progress.new[row])
        end = tokens.last(history.row(row, min(new, count)), count)
        if len(end) < count < new:
            # A token is one byte at least, unless it is special: there are such ones among the last.
            end = tokens.last(history.row(row, new), count)
        if len(end) >= count or not self._reads_prompt:
            return end
        last = history.row(row, min(int(history.lengths[row]), new + count))
        prompt = last[: len(last) - new]
        return tokens.last(prompt, count - len(end), after_special=True) + end


@dataclass(frozen=True)
class _Additions:
    """Tokens, each once, and what is added to their scores."""

    ids: np.ndarray
    values: np.ndarray

    def add(self, scores: np.ndarray, rows: np.ndarray) -> None:
        """Add to the scores of some rows, in place."""
        if len(self.ids) and len(rows):
            scores[rows[:, None], self.ids] += self.values


@dataclass(frozen=True)
class _Completions:
    """The tokens that complete words: by themselves (anywhere, or behind a border only), or behind the beginning of a
    word.

    ``begun`` has the latter by that beginning: those of words that need a border before them, and those of others.
    """

    anywhere: _Additions
    behind_border: _Additions
    begun: dict[bytes, tuple[_Additions, _Additions]]
    longest: int

    def of_begun_words(self, end: bytes) -> Iterator[_Additions]:
        """Yield what counts behind a text, for every beginning of a word that the text ends with."""
        for length in range(1, min(self.longest, len(end)) + 1):
            additions = self.begun.get(end[-length:])
            if additions is None:
                continue
            bordered, unbordered = additions
            yield unbordered
            if _is_border(end[:-length]):
                yield bordered


class _Sums:
    """Additions while they are collected."""

    def __init__(self) -> None:
        self._sums: dict[int, float] = defaultdict(float)

    def add(self, tokens: Iterable[int], value: float) -> None:
        """Add to the scores of tokens."""
        for token in tokens:
            self._sums[token] += value

    def total(self) -> _Additions:
        """Return what was collected."""
        ids = np.array(list(self._sums), np.int64)
        return _Additions(ids, np.array(list(self._sums.values()), np.float32))


def _find_completions(
    words: Sequence[tuple[str, float]],
    tokens: TokenBytes,
    width: int,
) -> _Completions:
    """Find, for each word and each beginning of it, the tokens that complete it; ids are below ``width``."""
    anywhere, behind_border = _Sums(), _Sums()
    begun: dict[bytes, tuple[_Sums, _Sums]] = defaultdict(lambda: (_Sums(), _Sums()))
    for text, value in words:
        word = _Word.of(text)
        inside, starting = _containing(tokens, word, width)
        anywhere.add(inside, value)
        starting -= inside  # a token that has the word twice counts once
        if word.begins_bordered:
            behind_border.add(starting, value)
        else:
            anywhere.add(starting, value)
        for place in range(1, len(word.spelled)):
            completing = list(_starting_with(tokens, word, word.spelled[place:], width))
            if not completing:
                continue
            bordered, unbordered = begun[word.spelled[:place]]
            if word.begins_bordered:
                bordered.add(completing, value)
            else:
                unbordered.add(completing, value)

    totals: dict[bytes, tuple[_Additions, _Additions]] = {}
    for start, (bordered, unbordered) in begun.items():
        totals[start] = bordered.total(), unbordered.total()
    return _Completions(
        anywhere.total(),
        behind_border.total(),
        totals,
        longest=max(map(len, totals), default=0),
    )


@dataclass(frozen=True)
class _Word:
    """A word's bytes, and whether it needs a border before it and behind it: a word of letters does."""

    spelled: bytes
    begins_bordered: bool
    ends_bordered: bool

    @classmethod
    def of(cls, text: str) -> _Word:
        """Return the word that a text is."""
        return cls(text.encode(), _is_word_character(text[0]), _is_word_character(text[-1]))

    def can_end_before(self, rest: bytes) -> bool:
        """Return whether the word can end where a token goes on with these bytes."""
        return not (self.ends_bordered and _continues_word(rest))


def _containing(tokens: TokenBytes, word: _Word, width: int) -> tuple[set[int], set[int]]:
    """Return the tokens that contain a whole word: behind something else, and at their beginning."""
    inside: set[int] = set()
    starting: set[int] = set()
    for token, place in tokens.containing(word.spelled):
        piece = tokens.pieces[token]
        if token >= width or not word.can_end_before(piece[place + len(word.spelled) :]):
            continue
        if place == 0:
            starting.add(token)
        elif not word.begins_bordered or _is_border(piece[:place]):
            inside.add(token)
    return inside, starting


def _starting_with(
    tokens: TokenBytes,
    word: _Word,
    rest: bytes,
    width: int,
) -> Iterator[int]:
    """Yield the tokens that begin with the rest of a word, and end it."""
    for token in tokens.starting_with(rest):
        if token < width and word.can_end_before(tokens.pieces[token][len(rest) :]):
            yield token


def _is_word_character(character: str) -> bool:
    """Return whether a character continues words: letters and digits of scripts with spaces between words, and
    ``_``."""
    point = ord(character)
    if any(first <= point <= last for first, last in _WITHOUT_SPACES):
        return False
    return character.isalnum() or character == "_"


def _is_border(before: bytes) -> bool:
    """Return whether a word can begin behind a text, of which these are the last bytes."""
    if not before:
        return True
    last_character = before[-_LONGEST_CHARACTER:].decode(errors="replace")[-1]
    return not _is_word_character(last_character)


def _continues_word(behind: bytes) -> bool:
    """Return whether a text begins with a character that continues a word."""
    if not behind:
        return False
    first_character = behind[:_LONGEST_CHARACTER].decode(errors="replace")[0]
    return _is_word_character(first_character)
