"""The tokenizer that a generator reads and writes with: tokenizer.json's, else that of SentencePiece files."""

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
        """The maximum number of tokens of a text."""

    def encode(
        self,
        texts: Sequence[str],
        *,
        offsets: bool = False,
        special: bool = True,
    ) -> Sequence[Any]:
        """Turn texts into objects with ``ids``, and ``overflowing`` if some were cut off."""

    def decode(self, ids: Sequence[int], special: bool = False) -> str:
        """Join tokens to a text; special ones are left out unless ``special``."""

    def token_id(self, token: str) -> int | None:
        """Return the id of a token; None if the vocabulary lacks it."""


_sentence_pieces: ProcessCache[SentencePieceTokenizer] = ProcessCache(limit=8)


def open_generation_tokenizer(
    bundle: Bundle,
    max_length: int | None,
    side: str | None,
) -> GenerationTokenizer:
    """Return this process's tokenizer for a bundle, loading it at first use; texts longer than ``max_length`` lose
    tokens at ``side``."""
    if not has_pieces(bundle):
        return open_tokenizer(bundle, Lengths(max_length, side=side))
    key = (bundle.hash, max_length, side)
    return _sentence_pieces.get(key, lambda: SentencePieceTokenizer(bundle, max_length, side))


def end_token_id(bundle: Bundle, tokenizer: GenerationTokenizer) -> int | None:
    """Return the token that ends a text for the model to read: the tokenizer's own, else config.json's, else None.

    Generation settings have no say in it: they name the tokens that end what is generated.
    """
    name = read_tokenizer_files(bundle).token("eos_token")
    token = None
    if name is not None:
        token = tokenizer.token_id(name)
    if token is not None:
        return token
    configured = bundle.config.get("eos_token_id")
    if isinstance(configured, list):
        return next(iter(configured), None)
    return configured


def largest_ordinary_id(bundle: Bundle) -> int | None:
    """Return the largest id of the vocabulary without added tokens; None if no file says."""
    if has_pieces(bundle):
        ids = bundle.read_object("target_vocab.json") or bundle.read_object("vocab.json")
        added = set(bundle.tokenizer_config.get("added_tokens_decoder") or {})
    else:
        content = bundle.read_object("tokenizer.json")
        ids = vocabulary_ids(content)
        added = {str(token["id"]) for token in content.get("added_tokens") or ()}
    ordinary = [index for index in ids.values() if str(index) not in added]
    return max(ordinary, default=None)


def has_pieces(bundle: Bundle) -> bool:
    """Return whether a bundle's tokenizer is made of SentencePiece files."""
    if bundle.tokenizer_path.is_file():
        return False
    return any((bundle.folder / name).is_file() for name in SOURCES)


def check_generation_tokenizer(bundle: Bundle) -> None:
    """Raise `BundleError` if a bundle's tokenizer is missing, or does not fit its graph."""
    if not has_pieces(bundle):
        check_tokenizer(bundle)
