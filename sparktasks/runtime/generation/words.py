"""Words that a text must not have, or should have: rules on the text itself, however its tokens spell it.

A token completes a word where the text so far, and the token behind it, hold the word, and the word ends in the token.
Words have borders: "scan" and "Canada" do not hold the words "can" and "Can".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sparktasks.runtime.generation.processors import Processor, Progress
from sparktasks.runtime.generation.token_bytes import TokenBytes

_LONGEST_CHARACTER = 4  # bytes in UTF-8

# Scripts that are written without spaces between words: Thai, Lao, Myanmar, Khmer, Kana, Han.
_WITHOUT_SPACES = (
    *((0x0E00, 0x0EFF), (0x1000, 0x109F), (0xA9E0, 0xA9FF), (0xAA60, 0xAA7F), (0x1780, 0x17FF), (0x19E0, 0x19FF)),
    *((0x3040, 0x30FF), (0x31F0, 0x31FF), (0xFF66, 0xFF9F)),
    *((0x2E80, 0x2FDF), (0x3005, 0x3007), (0x3021, 0x3029), (0x3038, 0x303B), (0x3400, 0x4DBF), (0x4E00, 0x9FFF)),
    *((0xF900, 0xFAFF), (0x20000, 0x3FFFF)),
)


@dataclass(frozen=True)
class Words:
    """What settings say in words: forbidden ones, and additions to the scores of others."""

    bad: tuple[str, ...] = ()
    bias: tuple[tuple[str, float], ...] = ()

    def values(self) -> list[tuple[str, float]]:
        """Return what is added to the score of a token that completes each word."""
        return [*self.bias, *((word, -np.inf) for word in self.bad)]


NO_WORDS = Words()


class BiasWords(Processor):
    """Adds to the scores of tokens that would complete a word; minus infinity forbids it.

    ``reads_prompt`` says that a word may begin in the prompt: the text continues it.
    """

    def __init__(self, words: Words, tokens: TokenBytes, reads_prompt: bool) -> None:
        self._words, self._tokens, self._reads_prompt = words.values(), tokens, reads_prompt
        self._longest = max(len(word.encode()) for word, _ in self._words)
        self._completions: _Completions | None = None

    def __call__(self, progress: Progress, scores: np.ndarray) -> None:
        if self._completions is None:
            self._completions = _completions(self._words, self._tokens, scores.shape[1])
        completions = self._completions
        ends = [self._end(progress, row) for row in range(len(scores))]
        completions.anywhere.add(scores, np.arange(len(scores)))
        completions.behind_border.add(scores, np.array([row for row, end in enumerate(ends) if _is_border(end)], int))
        for row, end in enumerate(ends):
            for begun in completions.of_begun_words(end):
                scores[row, begun.ids] += begun.values

    def _end(self, progress: Progress, row: int) -> bytes:
        """Return the last bytes of a row's text: those of the longest word's beginning, and a character before it.

        Special tokens are left out of the new text, but nothing is joined across those of the prompt.
        """
        count, history, tokens = self._longest - 1 + _LONGEST_CHARACTER, progress.history, self._tokens
        new = int(progress.new[row])
        end = tokens.last(history.row(row, min(new, count)), count)
        if len(end) < count < new:  # there are special tokens among the last ones
            end = tokens.last(history.row(row, new), count)
        if len(end) >= count or not self._reads_prompt:
            return end
        last = history.row(row, min(int(history.lengths[row]), new + count))
        return tokens.last(last[: len(last) - new], count - len(end), after_special=True) + end


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
    """The tokens that complete words: by themselves, or behind the beginning of one.

    ``begun`` has the latter by that beginning: those of words that need a border before them, and those of others.
    """

    anywhere: _Additions
    behind_border: _Additions
    begun: dict[bytes, tuple[_Additions, _Additions]]
    longest: int

    def of_begun_words(self, end: bytes) -> Iterator[_Additions]:
        """Yield what counts behind a text, for every beginning of a word that the text ends with."""
        for length in range(1, min(self.longest, len(end)) + 1):
            found = self.begun.get(end[-length:])
            if found is None:
                continue
            bordered, unbordered = found
            yield unbordered
            if _is_border(end[:-length]):
                yield bordered


class _Sums:
    """Additions while they are collected."""

    def __init__(self) -> None:
        self._sums: dict[int, float] = {}

    def add(self, tokens: set[int], value: float) -> None:
        for token in tokens:
            self._sums[token] = self._sums.get(token, 0.0) + value

    def total(self) -> _Additions:
        return _Additions(np.array(list(self._sums), np.int64), np.array(list(self._sums.values()), np.float32))


def _completions(words: Sequence[tuple[str, float]], tokens: TokenBytes, width: int) -> _Completions:
    """Find, for each word and each beginning of it, the tokens that complete it; ids are below ``width``."""
    anywhere, behind_border = _Sums(), _Sums()
    begun: dict[bytes, tuple[_Sums, _Sums]] = {}
    for word, value in words:
        spelled, needs_border = word.encode(), _is_word_character(word[0])
        inside, starting = _holding(tokens, word, width)
        if needs_border:
            anywhere.add(inside, value)
            behind_border.add(starting - inside, value)
        else:
            anywhere.add(inside | starting, value)
        for place in range(1, len(spelled)):
            completing = _starting_with(tokens, spelled[place:], _is_word_character(word[-1]), width)
            if completing:
                bordered, unbordered = begun.setdefault(spelled[:place], (_Sums(), _Sums()))
                (bordered if needs_border else unbordered).add(completing, value)
    totals = {start: (bordered.total(), unbordered.total()) for start, (bordered, unbordered) in begun.items()}
    return _Completions(anywhere.total(), behind_border.total(), totals, max(map(len, totals), default=0))


def _holding(tokens: TokenBytes, word: str, width: int) -> tuple[set[int], set[int]]:
    """Return the tokens that hold a whole word: behind something else, and at their start."""
    spelled, ends_bordered = word.encode(), _is_word_character(word[-1])
    inside, starting = set(), set()
    for token, place in tokens.containing(spelled):
        piece = tokens.pieces[token]
        if token >= width or (ends_bordered and _continues_word(piece[place + len(spelled) :])):
            continue
        if place == 0:
            starting.add(token)
        elif not _is_word_character(word[0]) or _is_border(piece[:place]):
            inside.add(token)
    return inside, starting


def _starting_with(tokens: TokenBytes, rest: bytes, ends_bordered: bool, width: int) -> set[int]:
    """Return the tokens that begin with the rest of a word, and do not go on with it."""
    found = set()
    for token in tokens.starting_with(rest):
        if token < width and not (ends_bordered and _continues_word(tokens.pieces[token][len(rest) :])):
            found.add(token)
    return found


def _is_word_character(character: str) -> bool:
    """Tell whether a character continues words: letters and digits of scripts with spaces between words, and ``_``."""
    point = ord(character)
    if any(first <= point <= last for first, last in _WITHOUT_SPACES):
        return False
    return character.isalnum() or character == "_"


def _is_border(before: bytes) -> bool:
    """Tell whether a word can begin behind a text, of which these are the last bytes."""
    return not before or not _is_word_character(before[-_LONGEST_CHARACTER:].decode(errors="replace")[-1])


def _continues_word(behind: bytes) -> bool:
    """Tell whether a text begins with a character that continues a word."""
    return bool(behind) and _is_word_character(behind[:_LONGEST_CHARACTER].decode(errors="replace")[0])
