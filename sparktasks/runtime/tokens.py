"""Text to token ids and back to offsets, with the bundle's own fast tokenizer and transformers' rules around it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tokenizers import AddedToken, Encoding, Tokenizer

from sparktasks.errors import BundleError, ParamError
from sparktasks.runtime.bundle import Bundle
from sparktasks.runtime.cache import ProcessCache

# transformers' classes that overwrite the normalizer of tokenizer.json with what tokenizer_config.json says.
_BERT_FAMILY = (
    *("Bert", "DistilBert", "Electra", "MPNet", "ConvBert", "Funnel", "LayoutLM", "LayoutLMv2"),
    *("Lxmert", "MobileBert", "Splinter", "SqueezeBert", "RetriBert"),
)
_BERT_NORMALIZED = frozenset(f"{name}Tokenizer" for name in _BERT_FAMILY)


@dataclass(frozen=True)
class Lengths:
    """How texts are cut: at most ``max_length`` tokens a window (None: never), special ones included.

    Of the text's own tokens neighbouring windows share ``stride``. ``words`` says that texts come as lists of words;
    byte-level tokenizers then put a space before each. ``pairs`` says that they come in pairs, which are cut and not windowed.
    ``side`` is where texts lose what is too long: left or right (None: as the bundle says).
    """

    max_length: int | None = None
    stride: int = 0
    words: bool = False
    pairs: bool = False
    side: str | None = None


def longest(bundle: Bundle, asked: int | None) -> int | None:
    """Return the most tokens of one run: what was asked, else what the bundle says; `ParamError` beyond its positions."""
    if asked is not None and bundle.positions is not None and asked > bundle.positions:
        raise ParamError(f"maxLength={asked} is more than the {bundle.positions} positions that the model in {bundle.folder} knows")
    return bundle.max_length if asked is None else asked


class TextTokenizer:
    """A bundle's tokenizer: no padding, cut to windows as `Lengths` says; what a window leaves over is in ``overflowing``."""

    def __init__(self, bundle: Bundle, lengths: Lengths) -> None:
        config = bundle.tokenizer_config
        self.core = _load(bundle)
        special = config | {key: token for key, token in (bundle.read_json("special_tokens_map.json") or {}).items() if key not in config}
        self.pad_id = self._pad_id(bundle, special)
        self.pad_type_id: int = config.get("pad_token_type_id", _XLNET_PAD_TYPE if _is_xlnet(bundle) else 0)
        self.pads_left: bool = config.get("padding_side", "left" if _is_xlnet(bundle) else "right") == "left"
        self.unk_id: int | None = self._id_of(special.get("unk_token") or getattr(self.core.model, "unk_token", None))
        self.has_subword_prefix = bool(getattr(self.core.model, "continuing_subword_prefix", None))
        if lengths.words:
            _set_state(self.core, "pre_tokenizer", "ByteLevel", {"add_prefix_space": True})
        self.max_length = lengths.max_length
        self._cuts_right = (lengths.side or config.get("truncation_side", "right")) == "right"
        if lengths.max_length is not None:
            self._limit(lengths)

    def _limit(self, lengths: Lengths) -> None:
        special = self.core.num_special_tokens_to_add(is_pair=lengths.pairs)
        room = (lengths.max_length or 0) - special
        if room < 1 + lengths.pairs or lengths.stride >= room:
            raise ParamError(
                f"maxLength={lengths.max_length} with stride={lengths.stride} leaves no room for text: "
                f"{special} of the tokens are special, and the stride must be smaller than the rest"
            )
        self.core.enable_truncation(lengths.max_length, stride=lengths.stride, direction="right" if self._cuts_right else "left")

    def _id_of(self, token: Any) -> int | None:
        name = token.get("content") if isinstance(token, dict) else token
        found: int | None = self.core.token_to_id(name) if name else None
        return found

    def _pad_id(self, bundle: Bundle, special: dict[str, Any]) -> int:
        for found in (self._id_of(special.get("pad_token")), bundle.config.get("pad_token_id")):
            if found is not None:
                return int(found)
        return 0

    def encode(self, texts: Sequence[str], pairs: Sequence[str] | None = None, offsets: bool = True, special: bool = True) -> list[Encoding]:
        """Encode texts, or pairs of texts; without ``offsets`` it is faster and the encodings have none.

        ``special`` says whether the tokenizer's special tokens are added.
        """
        encode = self.core.encode_batch if offsets else self.core.encode_batch_fast
        if pairs is None:
            found: list[Encoding] = encode(list(texts), add_special_tokens=special)
        else:
            found = encode([self._shortened(*both) for both in zip(texts, pairs, strict=True)])
        return found

    def token_id(self, token: str) -> int | None:
        """Return the id of a token; None where the vocabulary lacks it."""
        found: int | None = self.core.token_to_id(token)
        return found

    def decode(self, ids: Sequence[int], special: bool = False) -> str:
        """Join tokens to a text; special ones are left out unless ``special``."""
        return str(self.core.decode(list(ids), skip_special_tokens=not special))

    def _shortened(self, text: str, pair: str) -> tuple[str, str]:
        """Cut off what no pair can hold: the library would make a window for every part of one text with every part of the other.

        What is kept is longer than a pair, and the longer text stays the longer one: that decides which gives up more.
        """
        if self.max_length is None or len(text) + len(pair) <= _SHORT * self.max_length:
            return text, pair
        first, second = (self._uncut.encode(each, add_special_tokens=False).offsets for each in (text, pair))
        keep = 2 * self.max_length
        return self._part(text, first, keep + (len(first) > len(second))), self._part(pair, second, keep + (len(second) > len(first)))

    def _part(self, text: str, offsets: list[tuple[int, int]], keep: int) -> str:
        if len(offsets) <= keep:
            return text
        return text[: offsets[keep][0]] if self._cuts_right else text[offsets[-keep][0] :]

    @cached_property
    def _uncut(self) -> Tokenizer:
        copy = Tokenizer.from_str(self.core.to_str())
        copy.no_truncation()
        return copy

    def encode_words(self, texts: Sequence[Sequence[str]]) -> list[Encoding]:
        """Encode texts that are split into words already; ``word_ids`` of an encoding point into the given words."""
        found: list[Encoding] = self.core.encode_batch([list(words) for words in texts], is_pretokenized=True)
        return found

    def windows(self, encoding: Encoding) -> list[Encoding]:
        """Return the windows of one text, in the order of the text."""
        return sorted([encoding, *encoding.overflowing], key=_first_place)

    def is_subword(self, encoding: Encoding, text: str) -> list[bool]:
        """Tell which text tokens continue the word before them, by transformers' two rules.

        A tokenizer with a prefix for continuations (``##``) shows it in the token's length; for others a token continues
        a word where no space stands at its border. The unknown token never does.
        """
        ids = encoding.ids
        continues = []
        for index, (start, end) in text_tokens(encoding):
            found = (
                len(self.core.id_to_token(ids[index])) != end - start
                if self.has_subword_prefix
                else start > 0 and " " not in text[start - 1 : start + 1]
            )
            continues.append(found and ids[index] != self.unk_id)
        return continues


def _first_place(window: Encoding) -> tuple[int, int]:
    """Return where a window's text begins: the word (of texts given as words), and the character in it."""
    words, offsets = window.word_ids, window.offsets
    place = next((index for index, _ in text_tokens(window)), None)
    return (0, 0) if place is None else (words[place] or 0, offsets[place][0])


def text_tokens(encoding: Encoding) -> list[tuple[int, tuple[int, int]]]:
    """Return the place and the span (start, end) of every token that is not a special one the tokenizer added."""
    return [(index, span) for index, (span, special) in enumerate(zip(encoding.offsets, encoding.special_tokens_mask, strict=True)) if not special]


def stitched(windows: Sequence[Encoding], stride: int) -> list[tuple[int, int]]:
    """Cover a text's tokens once from overlapping windows: (window, place in it), in the order of the text.

    Of the ``stride`` tokens that two windows share, each gives the half that is farther from its own edge.
    """
    early = stride // 2
    late = stride - early
    cover: list[tuple[int, int]] = []
    for number, window in enumerate(windows):
        places = [index for index, _ in text_tokens(window)]
        first = late if number > 0 else 0
        last = len(places) - (early if number < len(windows) - 1 else 0)
        cover.extend((number, place) for place in places[first:last])
    return cover


# A pair of fewer characters than this times the length limit makes few windows at most.
_SHORT = 8
_XLNET_PAD_TYPE = 3


def _is_xlnet(bundle: Bundle) -> bool:
    return bundle.config.get("model_type") == "xlnet"


def _load(bundle: Bundle) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(bundle.tokenizer_path))
    except Exception as error:  # the library raises bare Exception
        raise BundleError(f"{bundle.tokenizer_path} is not a tokenizer file that the tokenizers library reads: {error}") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    _apply_config(tokenizer, bundle.tokenizer_config)
    return tokenizer


def _apply_config(tokenizer: Tokenizer, config: dict[str, Any]) -> None:
    """Change the tokenizer as transformers' fast classes do when tokenizer_config.json says otherwise than tokenizer.json."""
    known = set(tokenizer.get_vocab(with_added_tokens=True))
    added = [(int(index), token) for index, token in config.get("added_tokens_decoder", {}).items() if token["content"] not in known]
    for _, token in sorted(added, key=lambda entry: entry[0]):
        tokenizer.add_tokens([AddedToken(**{key: token[key] for key in token if key in _ADDED_TOKEN_KEYS})])
    if config.get("tokenizer_class", "").removesuffix("Fast") in _BERT_NORMALIZED:
        _set_state(tokenizer, "normalizer", "BertNormalizer", _bert_normalizer(config))
    prefix = config.get("add_prefix_space", False)
    _set_state(tokenizer, "pre_tokenizer", None, {"add_prefix_space": prefix})


_ADDED_TOKEN_KEYS = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")


def _bert_normalizer(config: dict[str, Any]) -> dict[str, Any]:
    return {
        "lowercase": config.get("do_lower_case", True),
        "strip_accents": config.get("strip_accents"),
        "handle_chinese_chars": config.get("tokenize_chinese_chars", True),
    }


def _set_state(tokenizer: Tokenizer, part: str, kind: str | None, wanted: dict[str, Any]) -> None:
    """Overwrite the fields of a top-level normalizer or pre-tokenizer that has them."""
    current = getattr(tokenizer, part)
    state = json.loads(current.__getstate__()) if current is not None else {}
    changed = {key: value for key, value in wanted.items() if key in state and state[key] != value}
    if changed and kind in (None, state["type"]):
        module = __import__(f"tokenizers.{part}s", fromlist=[state["type"]])
        setattr(tokenizer, part, getattr(module, state.pop("type"))(**(state | changed)))


_tokenizers: ProcessCache[TextTokenizer] = ProcessCache(limit=32)


def open_tokenizer(bundle: Bundle, lengths: Lengths) -> TextTokenizer:
    """Return this process's tokenizer for a bundle, loading it at first use."""
    return _tokenizers.get((bundle.hash, lengths), lambda: TextTokenizer(bundle, lengths))
