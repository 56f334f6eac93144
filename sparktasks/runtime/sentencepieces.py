"""The tokenizer of folders that have SentencePiece files and no tokenizer.json: Marian and M2M100."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparktasks.errors import BundleError, MissingDependency
from sparktasks.runtime.bundle import Bundle
from sparktasks.runtime.tokenizer_files import TokenizerFiles, read_tokenizer_files

# Names of the files that split sources, and of those that join targets; one file may do both.
SOURCES = ("source.spm", "sentencepiece.bpe.model", "spiece.model")
_TARGETS = ("target.spm", *SOURCES[1:])

# The token of a language, as M2M100 and its relatives have it: ``__fr__``, ``__zh_CN__``. A piece like ``____`` is
# text.
FRAMED_LANGUAGE = re.compile(r"__([a-z]{2,3}(?:[_-][A-Za-z]{2,4})?)__")

# What Marian puts before a source: ``>>fra<< A text.``
_PREFIX = re.compile(r"(>>.*?<<)(.*)", re.DOTALL)

_SPACE = "\u2581"
_DEFAULTS = {"pad_token": "<pad>", "unk_token": "<unk>", "eos_token": "</s>"}

# The languages of M2M100 (arXiv:2010.11125) and of the WMT21 models made from it, in the order of their tokens.
_M2M100 = {
    "m2m100": "af am ar ast az ba be bg bn br bs ca ceb cs cy da de el en es et fa ff fi fr fy ga gd gl gu ha he hi "
    "hr ht hu hy id ig ilo is it ja jv ka kk km kn ko lb lg ln lo lt lv mg mk ml mn mr ms my ne nl no ns "
    "oc or pa pl ps pt ro ru sd si sk sl so sq sr ss su sv sw ta th tl tn tr uk ur uz vi wo xh yi yo zh zu",
    "wmt21": "en ha is ja cs ru zh de",
}


@dataclass(frozen=True)
class Pieces:
    """A text's token ids; ``overflowing`` is not empty where some were cut off."""

    ids: list[int]
    overflowing: list[Any] = field(default_factory=list)


class SentencePieceTokenizer:
    """Splits texts with a SentencePiece model, and looks the pieces up in vocab.json; `BundleError` where a file is
    missing or damaged."""

    def __init__(self, bundle: Bundle, max_length: int | None = None, side: str | None = None) -> None:
        files = read_tokenizer_files(bundle)
        self.vocabulary = _vocabulary(bundle)
        target_vocabulary = bundle.read_object("target_vocab.json") or self.vocabulary
        self._target = {index: piece for piece, index in target_vocabulary.items()}
        self._add_tokens(files)
        self._source = _model(bundle, SOURCES)
        self._joiner = _model(bundle, _TARGETS)

        self.pad_id = self._id_of_role(files, "pad_token")
        self._unk = self._id_of_role(files, "unk_token")
        self._end = self._id_of_role(files, "eos_token")
        defaults = _DEFAULTS.keys() - files.special.keys()
        marks = {*files.special_texts, *map(_DEFAULTS.__getitem__, defaults)}
        # A mark that the vocabulary lacks is found in texts, and unknown.
        self.special_ids = set(map(self.vocabulary.__getitem__, marks & self.vocabulary.keys()))
        # Of two tokens that begin alike, the longer one is the one that stands in the text.
        self._marks = re.compile("|".join(map(re.escape, sorted(marks, key=len, reverse=True))))

        self._has_prefix = str(files.config.get("tokenizer_class", "")).startswith("Marian")
        self.max_length = max_length
        self._cuts_left = side == "left"

    def _add_tokens(self, files: TokenizerFiles) -> None:
        """Find the ids of added tokens, and of languages: they follow the vocabulary, in the order they are listed
        in."""
        for index, token in files.added.items():
            self.vocabulary.setdefault(str(token), index)
        languages = list(filter(FRAMED_LANGUAGE.fullmatch, map(str, files.additional)))
        if not languages:
            languages = language_tokens(files.config)
        # A language that the vocabulary has already takes up a place nevertheless.
        for index, language in enumerate(languages, start=len(self.vocabulary)):
            self.vocabulary.setdefault(language, index)
        for token, index in self.vocabulary.items():
            self._target.setdefault(index, token)

    def _id_of_role(self, files: TokenizerFiles, role: str) -> int:
        return self.vocabulary.get(files.token(role) or _DEFAULTS[role], 0)

    @property
    def has_bytes(self) -> bool:
        """Tell whether pieces such as ``<0x0A>`` stand for bytes."""
        return any(map(self._joiner.is_byte, range(len(self._joiner))))

    def pieces(self) -> dict[int, str]:
        """Return the pieces that texts are made of, by id: those that are not left out of them."""
        pieces = {}
        for index, piece in self._target.items():
            is_control = self._joiner.is_control(self._joiner.piece_to_id(piece))
            if index not in self.special_ids and not is_control:
                pieces[index] = piece
        return pieces

    def token_id(self, token: str) -> int | None:
        """Return the id of a piece; None where the vocabulary lacks it."""
        return self.vocabulary.get(token)

    def encode(self, texts: Sequence[str], offsets: bool = False, special: bool = True) -> list[Pieces]:
        """Turn texts into ids, the end token behind them if ``special``; there are no offsets."""
        return [self._encoded(text, special) for text in texts]

    def _encoded(self, text: str, special: bool) -> Pieces:
        ids = [self.vocabulary.get(piece, self._unk) for piece in self._pieces(text)]
        end = [self._end] if special else []
        if self.max_length is None:
            return Pieces(ids + end)
        room = self.max_length - len(end)
        if len(ids) <= room:
            return Pieces(ids + end)
        first = len(ids) - room if self._cuts_left else 0
        kept = ids[first : first + room]
        return Pieces(kept + end, overflowing=[Pieces(ids[room:])])

    def _pieces(self, text: str) -> list[str]:
        """Split a text; special tokens in it, and a Marian model's ``>>xx<<`` before it, stay whole."""
        pieces: list[str] = []
        end = 0
        for mark in self._marks.finditer(text):
            pieces += self._split(text[end : mark.start()])
            pieces.append(mark.group())
            end = mark.end()
        pieces += self._split(text[end:])
        return pieces

    def _split(self, part: str) -> list[str]:
        """Split what stands between two special tokens."""
        prefix = _PREFIX.match(part) if self._has_prefix else None
        if prefix is None:
            return list(self._source.encode(part, out_type=str))
        language, text = prefix.groups()
        return [language, *self._source.encode(text, out_type=str)]

    def decode(self, ids: Sequence[int], special: bool = False) -> str:
        """Join tokens to a text; special ones are left out unless ``special``."""
        parts: list[str] = []
        run: list[str] = []
        for index in ids:
            if index not in self.special_ids:
                run.append(self._target.get(index, "<unk>"))
            elif special:
                parts += [self._joiner.decode_pieces(run), self._target.get(index, "")]
                run = []
        parts.append(self._joiner.decode_pieces(run))
        return "".join(parts).replace(_SPACE, " ").strip()


def language_tokens(config: Any) -> list[str]:
    """Return the language tokens that a folder's tokenizer_config.json implies without listing them, in the order of
    their ids."""
    if not str(config.get("tokenizer_class", "")).startswith("M2M100"):
        return []
    kind = config.get("language_codes") or "m2m100"
    codes = _M2M100[kind].split()
    return [f"__{code}__" for code in codes]


def _vocabulary(bundle: Bundle) -> dict[str, int]:
    """Read the ids of pieces; `BundleError` where no file gives any."""
    vocabulary = bundle.read_json("vocab.json")
    if not isinstance(vocabulary, dict):
        raise BundleError(f"{bundle.folder} has SentencePiece files, but no vocab.json that gives their pieces ids")
    return dict(vocabulary)


def _model(bundle: Bundle, names: Sequence[str]) -> Any:
    """Open the first of some SentencePiece files that the folder has."""
    try:
        from sentencepiece import SentencePieceProcessor
    except ImportError as error:
        purpose = f"{bundle.folder} (it has no tokenizer.json)"
        raise MissingDependency("sentencepiece", purpose, "sentencepiece") from error
    paths = map(bundle.folder.joinpath, names)
    path = next(filter(Path.is_file, paths), None)
    if path is None:
        raise BundleError(f"{bundle.folder} has none of {', '.join(names)}")
    try:
        return SentencePieceProcessor(model_file=str(path))
    except Exception as error:  # RuntimeError or OSError, by the kind of damage
        raise BundleError(f"{path} is not a SentencePiece model: {error}") from error
