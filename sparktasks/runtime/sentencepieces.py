"""The tokenizer of folders that have SentencePiece files and no tokenizer.json: Marian and M2M100."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sparktasks.errors import BundleError, MissingDependency
from sparktasks.runtime.bundle import Bundle
from sparktasks.runtime.tokenizer_files import token_text

# Names of the files that split sources, and of those that join targets; one file may do both.
SOURCES = ("source.spm", "sentencepiece.bpe.model", "spiece.model")
_TARGETS = ("target.spm", *SOURCES[1:])

# The token of a language, as M2M100 and its relatives have it: ``__fr__``, ``__zh_CN__``. A piece like ``____`` is
# text.
FRAMED_LANGUAGE = re.compile(r"__([a-z]{2,3}(?:[_-][A-Za-z]{2,4})?)__")


@dataclass(frozen=True)
class Pieces:
    """A text's token ids; ``overflowing`` is not empty where some were cut off."""

    ids: list[int]
    overflowing: list[Any] = field(default_factory=list)


class SentencePieceTokenizer:
    """Splits texts with a SentencePiece model, and looks the pieces up in vocab.json; `BundleError` where a file is
    missing or damaged."""

    def __init__(self, bundle: Bundle, max_length: int | None = None, side: str | None = None) -> None:
        config = bundle.tokenizer_config
        special = _DEFAULTS | config | (bundle.read_json("special_tokens_map.json") or {})
        self.vocabulary: dict[str, int] = dict(_vocabulary(bundle))
        self._target = {
            index: piece for piece, index in (bundle.read_json("target_vocab.json") or self.vocabulary).items()
        }
        self._add_languages(config, special)
        self._source, self._joiner = _model(bundle, SOURCES), _model(bundle, _TARGETS)
        self.pad_id, self._unk, self._end = (
            self._special_id(special, name) for name in ("pad_token", "unk_token", "eos_token")
        )
        names = [token_text(value) for key, value in special.items() if key.endswith("_token") and value is not None]
        names += [token_text(value) for value in special.get("additional_special_tokens", [])]
        self.special_ids = {self.vocabulary[name] for name in names if name in self.vocabulary}
        self._marks = re.compile("|".join(re.escape(name) for name in sorted(set(names), key=len, reverse=True)))
        self._has_prefix = config.get("tokenizer_class", "").startswith("Marian")
        self.max_length, self._cuts_left = max_length, side == "left"

    def _add_languages(self, config: dict[str, Any], special: dict[str, Any]) -> None:
        """Find the ids of language tokens: they follow the vocabulary, in the order they are listed in."""
        for index, token in config.get("added_tokens_decoder", {}).items():
            self.vocabulary.setdefault(token["content"], int(index))
        additional = [token_text(value) for value in special.get("additional_special_tokens", [])]
        listed = [name for name in additional if FRAMED_LANGUAGE.fullmatch(name)]
        known = len(self.vocabulary)
        for place, name in enumerate(listed or language_tokens(config)):
            self.vocabulary.setdefault(name, known + place)
        self._target.update({index: name for name, index in self.vocabulary.items() if index not in self._target})

    def _special_id(self, special: dict[str, Any], name: str) -> int:
        return self.vocabulary.get(token_text(special[name]), 0)

    @property
    def has_bytes(self) -> bool:
        """Tell whether pieces such as ``<0x0A>`` stand for bytes."""
        return any(self._joiner.is_byte(index) for index in range(len(self._joiner)))

    def pieces(self) -> dict[int, str]:
        """Return the pieces that texts are made of, by id: those that are not left out of them."""
        found = {index: piece for index, piece in self._target.items() if index not in self.special_ids}
        control = {piece for piece in found.values() if self._joiner.is_control(self._joiner.piece_to_id(piece))}
        return {index: piece for index, piece in found.items() if piece not in control}

    def token_id(self, token: str) -> int | None:
        """Return the id of a piece; None where the vocabulary lacks it."""
        return self.vocabulary.get(token)

    def encode(self, texts: Sequence[str], offsets: bool = False, special: bool = True) -> list[Pieces]:
        """Turn texts into ids, the end token behind them if ``special``; there are no offsets."""
        return [self._encoded(text, special) for text in texts]

    def _encoded(self, text: str, special: bool) -> Pieces:
        ids = [self.vocabulary.get(piece, self._unk) for piece in self._pieces(text)]
        room = len(ids) if self.max_length is None else self.max_length - special
        kept = ids[-room:] if self._cuts_left and room else ids[:room]
        return Pieces(kept + [self._end] * special, [Pieces(ids[room:])] if len(ids) > room else [])

    def _pieces(self, text: str) -> list[str]:
        """Split a text; special tokens in it, and a Marian model's ``>>xx<<`` before it, stay whole."""
        pieces: list[str] = []
        end = 0
        for mark in [*self._marks.finditer(text), None]:
            part = text[end : mark.start() if mark else len(text)]
            if self._has_prefix and part.startswith(">>") and "<<" in part:
                code, _, part = part.partition("<<")
                pieces.append(f"{code}<<")
            pieces.extend(self._source.encode(part, out_type=str) if part else [])
            if mark:
                pieces.append(mark.group())
                end = mark.end()
        return pieces

    def decode(self, ids: Sequence[int], special: bool = False) -> str:
        """Join tokens to a text; special ones are left out unless ``special``."""
        parts: list[str] = []
        run: list[str] = []
        for index in ids:
            if index in self.special_ids:
                if special:
                    parts += [self._joiner.decode_pieces(run), self._target.get(index, "")]
                    run = []
            else:
                run.append(self._target.get(index, "<unk>"))
        parts.append(self._joiner.decode_pieces(run))
        return "".join(parts).replace("\u2581", " ").strip()


def language_tokens(config: dict[str, Any]) -> list[str]:
    """Return the language tokens that a folder's tokenizer_config.json implies without listing them, in the order of
    their ids."""
    if not str(config.get("tokenizer_class", "")).startswith("M2M100"):
        return []
    return [f"__{code}__" for code in _M2M100[config.get("language_codes") or "m2m100"].split()]


# The languages of M2M100 (arXiv:2010.11125) and of the WMT21 models made from it, in the order of their tokens.
_M2M100 = {
    "m2m100": "af am ar ast az ba be bg bn br bs ca ceb cs cy da de el en es et fa ff fi fr fy ga gd gl gu ha he hi "
    "hr ht hu hy id ig ilo is it ja jv ka kk km kn ko lb lg ln lo lt lv mg mk ml mn mr ms my ne nl no ns "
    "oc or pa pl ps pt ro ru sd si sk sl so sq sr ss su sv sw ta th tl tn tr uk ur uz vi wo xh yi yo zh zu",
    "wmt21": "en ha is ja cs ru zh de",
}
_DEFAULTS = {"pad_token": "<pad>", "unk_token": "<unk>", "eos_token": "</s>"}


def _vocabulary(bundle: Bundle) -> dict[str, int]:
    found = bundle.read_json("vocab.json")
    if not isinstance(found, dict):
        raise BundleError(f"{bundle.folder} has SentencePiece files, but no vocab.json that gives their pieces ids")
    return found


def _model(bundle: Bundle, names: Sequence[str]) -> Any:
    try:
        from sentencepiece import SentencePieceProcessor
    except ImportError as error:
        raise MissingDependency(
            "sentencepiece", f"{bundle.folder} (it has no tokenizer.json)", "sentencepiece"
        ) from error
    path = next((bundle.folder / name for name in names if (bundle.folder / name).is_file()), None)
    if path is None:
        raise BundleError(f"{bundle.folder} has none of {', '.join(names)}")
    try:
        return SentencePieceProcessor(model_file=str(path))
    except Exception as error:  # RuntimeError or OSError, by the kind of damage
        raise BundleError(f"{path} is not a SentencePiece model: {error}") from error
