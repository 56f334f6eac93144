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


class TokenBytes:
    """The bytes of every token, by id; none for special tokens, which texts leave out.

    ``single_bytes`` are the tokens that stand for one byte each (``<0x0A>``): decoders make a text of a run of them,
    or, where the run is none, of each a replacement character.
    """

    def __init__(self, pieces: Sequence[bytes], single_bytes: Container[int] = ()) -> None:
        self.pieces, self._single_bytes = pieces, single_bytes
        self._order = sorted(range(len(pieces)), key=pieces.__getitem__)
        self._sorted = [pieces[token] for token in self._order]
        self._joined = b"".join(pieces)
        self._ends = np.cumsum([len(piece) for piece in pieces])

    def starting_with(self, start: bytes) -> Iterator[int]:
        """Yield the tokens whose bytes begin like this."""
        place = bisect_left(self._sorted, start)
        while place < len(self._sorted) and self._sorted[place].startswith(start):
            yield self._order[place]
            place += 1

    def containing(self, part: bytes) -> Iterator[tuple[int, int]]:
        """Yield every place where tokens hold these bytes: the token, and where in it they begin."""
        begin = self._joined.find(part)
        while begin >= 0:
            token = int(np.searchsorted(self._ends, begin, side="right"))
            end = int(self._ends[token])
            if begin + len(part) <= end:
                yield token, begin - (end - len(self.pieces[token]))
            begin = self._joined.find(part, begin + 1)

    def last(self, ids: Sequence[int], count: int, after_special: bool = False) -> bytes:
        """Return the last bytes, about ``count``, of the text that tokens make.

        With ``after_special`` only what stands behind the last special token counts.
        """
        last: list[int] = []
        length = 0
        for token in reversed(ids):
            size = len(self.pieces[token]) if token < len(self.pieces) else 0
            if (length >= count and token not in self._single_bytes) or (after_special and not size):
                break
            if size:
                last.append(token)
                length += size
        parts: list[bytes] = []
        for is_run, group in groupby(reversed(last), key=self._single_bytes.__contains__):
            part = b"".join(self.pieces[token] for token in group)
            parts.append(_decodable(part) if is_run else part)
        return b"".join(parts)


def _decodable(run: bytes) -> bytes:
    """Replace all bytes of a run that is no text, nor the beginning of one."""
    try:
        run.decode()
    except UnicodeDecodeError as error:
        if error.reason != "unexpected end of data":
            return "\ufffd".encode() * len(run)
    return run


def read_token_bytes(tokenizer: GenerationTokenizer) -> TokenBytes:
    """Find out the bytes of each of a tokenizer's tokens."""
    if isinstance(tokenizer, SentencePieceTokenizer):
        spelling = _Marked(_SPACE_MARK, tokenizer.has_bytes)
        return _spelled(tokenizer.pieces(), spelling)
    core: Any = tokenizer.core  # type: ignore[attr-defined]
    special = {index for index, token in core.get_added_tokens_decoder().items() if token.special}
    names = core.get_vocab(with_added_tokens=True).items()
    tokens = {index: token for token, index in names if index not in special}
    known = _spelling_of(_decoders(core))
    return _spelled(tokens, known) if known is not None else _spelled(_texts_behind_a_word(core, tokens), str.encode)


def _spelled(tokens: Mapping[int, str], spell: Callable[[str], bytes]) -> TokenBytes:
    pieces = [b""] * (max(tokens, default=-1) + 1)
    for index, token in tokens.items():
        pieces[index] = spell(token)
    single = isinstance(spell, _Marked) and spell.has_bytes
    return TokenBytes(pieces, {index for index, token in tokens.items() if single and _BYTE.fullmatch(token)})


def _decoders(core: Any) -> list[dict[str, Any]]:
    """Return the steps by which the tokenizers library joins tokens to a text."""
    state: dict[str, Any] = {} if core.decoder is None else json.loads(core.decoder.__getstate__())
    steps: list[dict[str, Any]] = state.get("decoders", [state])
    return steps


def _spelling_of(decoders: Sequence[dict[str, Any]]) -> Callable[[str], bytes] | None:
    """Return how a token's name spells bytes; None where it cannot be told from the decoder."""
    kinds = {step.get("type") for step in decoders}
    if "ByteLevel" in kinds:
        return _byte_level
    has_bytes = "ByteFallback" in kinds
    for step in decoders:
        kind = step.get("type")
        if kind == "Metaspace":
            return _Marked(step["replacement"], has_bytes)
        if kind == "Replace" and step.get("content") == " " and "String" in step["pattern"]:
            return _Marked(step["pattern"]["String"], has_bytes)
        if kind == "BPEDecoder":
            return _Marked(step["suffix"], has_bytes)
    return _Marked(_SPACE_MARK, has_bytes) if has_bytes else None


def _byte_alphabet() -> dict[str, int]:
    """Return the byte that each character of byte-level vocabularies stands for, as GPT-2 has them."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + place): byte for place, byte in enumerate(others)}


_ALPHABET = _byte_alphabet()


def _byte_level(token: str) -> bytes:
    if all(character in _ALPHABET for character in token):
        return bytes(_ALPHABET[character] for character in token)
    return token.encode()  # a token that was added to the vocabulary, as it reads


@dataclass(frozen=True)
class _Marked:
    """The spelling of vocabularies that write spaces as a mark, and, some of them, bytes as ``<0xNN>``."""

    mark: str
    has_bytes: bool

    def __call__(self, token: str) -> bytes:
        byte = _BYTE.fullmatch(token) if self.has_bytes else None
        return bytes([int(byte[1], 16)]) if byte else token.replace(self.mark, " ").encode()


def _texts_behind_a_word(core: Any, tokens: Mapping[int, str]) -> dict[int, str]:
    """Return what each token adds to a text that ends with a word, as the decoder has it."""
    alone = core.decode_batch([[index] for index in tokens])
    words = (index for index, text in zip(tokens, alone, strict=True) if text.isascii() and text.isalpha())
    anchor = next(words, None)
    if anchor is None:
        return dict(zip(tokens, alone, strict=True))
    start = len(core.decode([anchor]))
    behind = core.decode_batch([[anchor, index] for index in tokens])
    return {index: text[start:] for index, text in zip(tokens, behind, strict=True)}


_token_bytes: ProcessCache[TokenBytes] = ProcessCache(limit=8)


def open_token_bytes(bundle: Bundle, tokenizer: GenerationTokenizer) -> TokenBytes:
    """Return this process's table of a bundle's token bytes, made at first use."""
    return _token_bytes.get(bundle.hash, lambda: read_token_bytes(tokenizer))
