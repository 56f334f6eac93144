"""The tokenizer that a generator reads and writes with: tokenizer.json's, else SentencePiece files'."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from sparktasks.runtime.bundle import Bundle
from sparktasks.runtime.cache import ProcessCache
from sparktasks.runtime.checks import check_tokenizer, vocabulary_ids
from sparktasks.runtime.sentencepieces import SOURCES, SentencePieceTokenizer
from sparktasks.runtime.tokenizer_files import read_tokenizer_files
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
    """Return this process's tokenizer for a bundle, loading it at first use; texts longer than ``max_length`` lose
    tokens at ``side``."""
    if has_pieces(bundle):
        return _pieces.get((bundle.hash, max_length, side), lambda: SentencePieceTokenizer(bundle, max_length, side))
    return open_tokenizer(bundle, Lengths(max_length, side=side))


def end_token_id(bundle: Bundle, tokenizer: GenerationTokenizer) -> int | None:
    """Return the token that ends a text for the model to read: the tokenizer's own, else config.json's, else None.

    Settings of generation have no say in it: they tell which tokens end what is generated.
    """
    name = read_tokenizer_files(bundle).token("eos_token")
    known = None if name is None else tokenizer.token_id(name)
    configured = bundle.config.get("eos_token_id")
    ids = configured if isinstance(configured, list) else [configured]
    return known if known is not None else next(iter(ids), None)


def largest_ordinary_id(bundle: Bundle) -> int | None:
    """Return the largest id of the vocabulary without added tokens; None where no file tells."""
    if has_pieces(bundle):
        vocabulary = bundle.read_json("target_vocab.json") or bundle.read_json("vocab.json") or {}
        added = bundle.tokenizer_config.get("added_tokens_decoder") or {}
        return max((index for index in vocabulary.values() if str(index) not in added), default=None)
    content = bundle.read_json("tokenizer.json") or {}
    added = {token["id"] for token in content.get("added_tokens") or ()}
    return max((index for index in vocabulary_ids(content).values() if index not in added), default=None)


def has_pieces(bundle: Bundle) -> bool:
    """Tell whether a bundle's tokenizer is made of SentencePiece files."""
    return not bundle.tokenizer_path.is_file() and any((bundle.folder / name).is_file() for name in SOURCES)


def check_generation_tokenizer(bundle: Bundle) -> None:
    """Raise `BundleError` where a bundle's tokenizer is missing, or does not fit its graph."""
    if not has_pieces(bundle):
        check_tokenizer(bundle)
