"""The bytes that each token adds to a text, for every kind of tokenizer: rules on words are rules on these."""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from sparktasks.runtime.bundle import Bundle
from sparktasks.runtime.cache import ProcessCache
from sparktasks.runtime.generation.tokenizer import GenerationTokenizer
from sparktasks.runtime.sentencepieces import SentencePieceTokenizer

_SPACE_MARK = "\u2581"
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_REPLACEMENT = "\ufffd".encode()


class TokenBytes:
    """The bytes of every token, by id; none for special tokens, which texts leave out.

    ``single_bytes`` are the tokens that stand for one byte each (``<0x0A>``): decoders turn a run of them into text,
    or, if the run is no text, each of them into a replacement character.
    """

    def __init__(self, pieces: Sequence[bytes], single_bytes: Container[int] = ()) -> None:
        self.pieces = pieces
        self._single_bytes = single_bytes
        # Sorted, tokens with the same beginning stand side by side; joined, one search goes through all of them.
        self._order = sorted(range(len(pieces)), key=pieces.__getitem__)
        self._sorted = [pieces[token] for token in self._order]
        self._joined = b"".join(pieces)
        self._ends = np.cumsum([len(piece) for piece in pieces])

    def starting_with(self, start: bytes) -> Iterator[int]:
        """Yield the tokens whose bytes begin with ``start``."""
        place = bisect_left(self._sorted, start)
        while place < len(self._sorted) and self._sorted[place].startswith(start):
            yield self._order[place]
            place += 1

    def containing(self, part: bytes) -> Iterator[tuple[int, int]]:
        """Yield every place where a token contains these bytes: the token, and where in it they begin."""
        begin = self._joined.find(part)
        while begin >= 0:
            token = int(np.searchsorted(self._ends, begin, side="right"))
            token_end = int(self._ends[token])
            if begin + len(part) <= token_end:  # else they are spread over several tokens
                token_begin = token_end - len(self.pieces[token])
                yield token, begin - token_begin
            begin = self._joined.find(part, begin + 1)

    def last(self, ids: Sequence[int], count: int, after_special: bool = False) -> bytes:
        """Return the last bytes, about ``count``, of the text that tokens make.

        With ``after_special`` only what follows the last special token counts.
        """
        parts: list[bytes] = []
        tokens = self._last_tokens(ids, count, after_special)
        for is_run, group in groupby(tokens, key=self._single_bytes.__contains__):
            part = b"".join([self.pieces[token] for token in group])
            parts.append(_decodable(part) if is_run else part)
        return b"".join(parts)

    def _last_tokens(self, ids: Sequence[int], count: int, after_special: bool) -> list[int]:
        """Return the last tokens that make at least ``count`` bytes, without special ones."""
        tokens: list[int] = []
        length = 0
        for token in reversed(ids):
            # A run of single bytes is taken whole: by its last bytes alone nobody can tell whether it is text.
            if length >= count and token not in self._single_bytes:
                break
            size = len(self.pieces[token]) if token < len(self.pieces) else 0
            if size:
                tokens.append(token)
                length += size
            elif after_special:
                break
        tokens.reverse()
        return tokens


def _decodable(run: bytes) -> bytes:
    """Replace all bytes of a run that is neither text nor the beginning of one."""
    try:
        run.decode()
    except UnicodeDecodeError as error:
        if error.reason != "unexpected end of data":
            return _REPLACEMENT * len(run)
    return run


def read_token_bytes(tokenizer: GenerationTokenizer) -> TokenBytes:
    """Find out the bytes of each of a tokenizer's tokens."""
    if isinstance(tokenizer, SentencePieceTokenizer):
        return _spelled(tokenizer.pieces(), _Marked(_SPACE_MARK, tokenizer.has_bytes))

    core: Any = tokenizer.core  # type: ignore[attr-defined]
    tokens = {index: name for name, index in core.get_vocab(with_added_tokens=True).items()}
    for index, token in core.get_added_tokens_decoder().items():
        if token.special:
            tokens.pop(index, None)
    spelling = _spelling(_decoder_steps(core))
    if spelling is None:
        # The names do not tell: the decoder must be asked what each of them adds to a text.
        return _spelled(_texts_behind_a_word(core, tokens), str.encode)
    return _spelled(tokens, spelling)


def _spelled(tokens: Mapping[int, str], spelling: Callable[[str], bytes]) -> TokenBytes:
    """Spell all tokens, whose names are given by id."""
    writes_bytes = isinstance(spelling, _Marked) and spelling.has_bytes
    pieces = [b""] * (max(tokens, default=-1) + 1)
    single_bytes: set[int] = set()
    for index, name in tokens.items():
        pieces[index] = spelling(name)
        if writes_bytes and _BYTE.fullmatch(name):
            single_bytes.add(index)
    return TokenBytes(pieces, single_bytes)


def _decoder_steps(core: Any) -> list[dict[str, Any]]:
    """Return the steps by which the tokenizers library joins tokens to a text."""
    if core.decoder is None:
        return []
    state: dict[str, Any] = json.loads(core.decoder.__getstate__())
    steps: list[dict[str, Any]] = state.get("decoders", [state])
    return steps


def _spelling(steps: Sequence[dict[str, Any]]) -> Callable[[str], bytes] | None:
    """Return how a token's name spells bytes; None if the decoder's steps do not say."""
    kinds = [step.get("type") for step in steps]
    if "ByteLevel" in kinds:
        return _byte_level
    has_bytes = "ByteFallback" in kinds
    for step in steps:
        mark = _space_mark(step)
        if mark is not None:
            return _Marked(mark, has_bytes)
    if has_bytes:
        return _Marked(_SPACE_MARK, has_bytes)
    return None


def _space_mark(step: Mapping[str, Any]) -> str | None:
    """Return what a decoder's step takes for a space; None if it is about something else."""
    mark: str | None = None
    kind = step.get("type")
    if kind == "Metaspace":
        mark = step["replacement"]
    elif kind == "BPEDecoder":
        mark = step["suffix"]
    elif kind == "Replace" and step.get("content") == " ":
        mark = step["pattern"].get("String")  # else it is a regular expression
    return mark


def _byte_alphabet() -> dict[str, int]:
    """Return the byte that each character of byte-level vocabularies stands for, as in GPT-2."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    alphabet: dict[str, int] = {}
    others = 0
    for byte in range(256):
        if byte in printable:
            alphabet[chr(byte)] = byte
        else:
            alphabet[chr(256 + others)] = byte
            others += 1
    return alphabet


_ALPHABET = _byte_alphabet()


def _byte_level(token: str) -> bytes:
    """Spell a token of a byte-level vocabulary."""
    try:
        return bytes([_ALPHABET[character] for character in token])
    except KeyError:  # a token that was added to the vocabulary, and stands for its own characters
        return token.encode()


@dataclass(frozen=True)
class _Marked:
    """The spelling of vocabularies that write spaces as a mark, and, some of them, bytes as ``<0xNN>``."""

    mark: str
    has_bytes: bool

    def __call__(self, token: str) -> bytes:
        if self.has_bytes:
            byte = _BYTE.fullmatch(token)
            if byte:
                return bytes([int(byte[1], 16)])
        return token.replace(self.mark, " ").encode()


def _texts_behind_a_word(core: Any, tokens: Mapping[int, str]) -> dict[int, str]:
    """Return what each token adds to a text that ends with a word, according to the decoder."""
    alone = core.decode_batch([[index] for index in tokens])
    texts = dict(zip(tokens, alone, strict=True))
    words = [index for index, text in texts.items() if text.isascii() and text.isalpha()]
    if words:
        # Alone, a token is spelled as at the beginning of a text, without the space before it.
        word = words[0]
        behind = core.decode_batch([[word, index] for index in tokens])
        start = len(texts[word])
        for index, text in zip(tokens, behind, strict=True):
            texts[index] = text[start:]
    return texts


_token_bytes: ProcessCache[TokenBytes] = ProcessCache(limit=8)


def open_token_bytes(bundle: Bundle, tokenizer: GenerationTokenizer) -> TokenBytes:
    """Return this process's table of a bundle's token bytes, made at first use."""
    return _token_bytes.get(bundle.hash, lambda: read_token_bytes(tokenizer))
