"""The tokenizer that a generator reads and writes with: tokenizer.json's, else SentencePiece files'."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from sparktasks.runtime.bundle import Bundle, check_tokenizer
from sparktasks.runtime.cache import ProcessCache
from sparktasks.runtime.sentencepieces import SOURCES, SentencePieceTokenizer
from sparktasks.runtime.tokens import Lengths, open_tokenizer


class GenerationTokenizer(Protocol):
    """Texts to ids and back."""

    @property
    def pad_id(self) -> int:
        """The id that fills up shorter rows."""

    @property
    def max_length(self) -> int | None:
        """The most tokens of a text."""

    def encode(self, texts: Sequence[str], *, offsets: bool = False, special: bool = True) -> Sequence[Any]:
        """Turn texts into objects with ``ids``, and ``overflowing`` where some were cut off."""

    def decode(self, ids: Sequence[int], special: bool = False) -> str:
        """Join tokens to a text; special ones are left out unless ``special``."""

    def token_id(self, token: str) -> int | None:
        """Return the id of a token; None where the vocabulary lacks it."""


_pieces: ProcessCache[SentencePieceTokenizer] = ProcessCache(limit=8)


def open_generation_tokenizer(bundle: Bundle, max_length: int | None, side: str | None) -> GenerationTokenizer:
    """Return this process's tokenizer for a bundle, loading it at first use; texts longer than ``max_length`` lose tokens at ``side``."""
    if has_pieces(bundle):
        return _pieces.get((bundle.hash, max_length, side), lambda: SentencePieceTokenizer(bundle, max_length, side))
    return open_tokenizer(bundle, Lengths(max_length, side=side))


def has_pieces(bundle: Bundle) -> bool:
    """Tell whether a bundle's tokenizer is made of SentencePiece files."""
    return not bundle.tokenizer_path.is_file() and any((bundle.folder / name).is_file() for name in SOURCES)


def check_generation_tokenizer(bundle: Bundle) -> None:
    """Raise `BundleError` where a bundle's tokenizer is missing, or does not fit its graph."""
    if not has_pieces(bundle):
        check_tokenizer(bundle)
