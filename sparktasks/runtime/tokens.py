"""Text to token ids and back to offsets, with the bundle's own fast tokenizer and transformers' rules around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

from tokenizers import Encoding, Tokenizer
from tokenizers.normalizers import Lowercase
from tokenizers.normalizers import Sequence as Normalizers

from sparktasks.errors import ParamError
from sparktasks.runtime.bundle import Bundle
from sparktasks.runtime.cache import ProcessCache
from sparktasks.runtime.tokenizer_files import read_tokenizer_files
from sparktasks.runtime.tokenizer_loading import load_tokenizer, set_state


@dataclass(frozen=True)
class Lengths:
    """How texts are cut: at most ``max_length`` tokens a window (None: never), special ones included.

    Of the text's own tokens neighbouring windows share ``stride``. ``words`` says that texts come as lists of words;
    byte-level tokenizers then put a space before each. ``pairs`` says that they come in pairs, which are cut and not
    windowed. ``side`` is where texts lose what is too long: left or right (None: as the bundle says). ``lower`` says
    that texts are put into small letters first. ``windows`` says that the windows behind the first one are read too.
    """

    max_length: int | None = None
    stride: int = 0
    words: bool = False
    pairs: bool = False
    side: str | None = None
    lower: bool = False
    windows: bool = False


def longest(bundle: Bundle, asked: int | None) -> int | None:
    """Return the most tokens of one run: what was asked, else what the bundle says.

    Raises `ParamError` where more are asked for than the model has positions.
    """
    if asked is None:
        return bundle.max_length
    if bundle.positions is not None and asked > bundle.positions:
        raise ParamError(
            f"maxLength={asked} is more than the {bundle.positions} positions that the model in {bundle.folder} knows"
        )
    return asked


class _MeasuredText(NamedTuple):
    """A text, or the kept side of a very long one, with the spans of its tokens.

    ``tokens`` is the number of tokens of the whole text; an estimate where this is a side of it, since only which of
    two texts is longer matters.
    """

    text: str
    spans: list[tuple[int, int]]
    tokens: float


class TextTokenizer:
    """A bundle's tokenizer: no padding, cut to windows as `Lengths` says.

    What a window leaves over is in ``overflowing`` of its encoding.
    """

    def __init__(self, bundle: Bundle, lengths: Lengths) -> None:
        self.files = read_tokenizer_files(bundle)
        self.core = load_tokenizer(bundle, self.files)
        self.unk_id = self.token_id(self.files.token("unk_token"))
        self.has_subword_prefix = bool(getattr(self.core.model, "continuing_subword_prefix", None))
        self.pad_ids = self._pad_ids(bundle)
        if lengths.words:
            set_state(self.core, "pre_tokenizer", {"add_prefix_space": True}, kind="ByteLevel")
        if lengths.lower:
            # Before the bundle's own normalizer, as sentence-transformers lower-cases texts before it tokenizes them.
            self.core.normalizer = Normalizers([Lowercase(), *filter(None, [self.core.normalizer])])
        self.max_length = lengths.max_length
        self._reads_windows = lengths.windows
        self._cuts_right = not self.files.cuts_left
        if lengths.side is not None:
            self._cuts_right = lengths.side == "right"
        if lengths.max_length is not None:
            self._limit(lengths.max_length, lengths)

    @property
    def pad_id(self) -> int:
        """The id that fills up shorter texts."""
        return self.pad_ids[0]

    def _limit(self, max_length: int, lengths: Lengths) -> None:
        special = self.core.num_special_tokens_to_add(is_pair=lengths.pairs)
        room = max_length - special
        # Each text of a pair must keep a token.
        if room < 1 + lengths.pairs or lengths.stride >= room:
            raise ParamError(
                f"maxLength={max_length} with stride={lengths.stride} leaves no room for text: "
                f"{special} of the tokens are special, and the stride must be smaller than the rest"
            )
        direction = "right" if self._cuts_right else "left"
        self.core.enable_truncation(max_length, stride=lengths.stride, direction=direction)

    def _pad_ids(self, bundle: Bundle) -> tuple[int, ...]:
        """Return the ids that may be meant by padding, the likeliest first.

        Graphs that count tokens (positions of RoBERTa, the last token of a decoder) were exported with the id of
        config.json; the tokenizer may have another one.
        """
        rows = bundle.graph.embedding_rows
        most = float("inf") if rows is None else rows
        known = []
        for pad_id in (bundle.config.get("pad_token_id"), self.token_id(self.files.token("pad_token"))):
            # Some configs say -1, and some an id that was added to the vocabulary but not to the model.
            if pad_id is not None and 0 <= pad_id < most:
                known.append(int(pad_id))
        return tuple(dict.fromkeys([*known, 0]))

    def encode(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, offsets: bool = True, special: bool = True
    ) -> list[Encoding]:
        """Encode texts, or pairs of texts; without ``offsets`` it is faster and the encodings have none.

        ``special`` says whether the tokenizer's special tokens are added.
        """
        library_call = self.core.encode_batch if offsets else self.core.encode_batch_fast
        encode: Callable[..., list[Encoding]] = partial(library_call, add_special_tokens=special)
        if pairs is not None:
            return encode([self._shortened_pair(text, pair) for text, pair in zip(texts, pairs, strict=True)])
        # Texts that lose their left side are read in whole where somebody asks for offsets: those count from the start.
        keeps_offsets = self._cuts_right or not offsets
        if self.max_length is None or self._reads_windows or not keeps_offsets:
            return encode(list(texts))
        return self._encode_kept_sides(texts, encode, _CHARACTERS * self.max_length)

    def _encode_kept_sides(
        self, texts: Sequence[str], encode: Callable[..., list[Encoding]], size: int
    ) -> list[Encoding]:
        """Encode so many characters of each text, and more of those where they make too few tokens."""
        encodings: list[Any] = [None] * len(texts)
        pending = list(range(len(texts)))
        while pending:
            sides = [self._kept_side(texts[place], size) for place in pending]
            unsure = []
            for place, encoding in zip(pending, encode(sides), strict=True):
                encodings[place] = encoding
                if len(texts[place]) > size and len(encoding.overflowing) < _SURE:
                    unsure.append(place)
            pending = unsure
            size *= 4
        return encodings

    def _kept_side(self, text: str, size: int) -> str:
        """Return so many characters of the side of a text that is kept."""
        if len(text) <= size:
            return text
        return text[:size] if self._cuts_right else text[-size:]

    def token_id(self, token: str | None) -> int | None:
        """Return the id of a token; None where the vocabulary lacks it, and for no token."""
        token_id: int | None = self.core.token_to_id(token) if token else None
        return token_id

    def decode(self, ids: Sequence[int], special: bool = False) -> str:
        """Join tokens to a text; special ones are left out unless ``special``."""
        return str(self.core.decode(list(ids), skip_special_tokens=not special))

    def _shortened_pair(self, text: str, pair: str) -> tuple[str, str]:
        """Cut off what no pair can hold: the library would make a window for every part of one text with every part of
        the other.

        What is kept is longer than a pair, and the longer text stays the longer one: that decides which gives up more.
        """
        if self.max_length is None or len(text) + len(pair) <= _SHORT * self.max_length:
            return text, pair
        keep = 2 * self.max_length
        first, second = self._measured(text, keep), self._measured(pair, keep)
        surplus = first.tokens - second.tokens
        is_estimated = (first.text, second.text) != (text, pair)
        if is_estimated and abs(surplus) < _ALIKE * max(first.tokens, second.tokens):
            surplus = 0
        return self._part(first, keep + (surplus > 0)), self._part(second, keep + (surplus < 0))

    def _measured(self, text: str, tokens: int) -> _MeasuredText:
        """Encode a text, or of a very long one the kept side as far as it surely has so many tokens."""
        size = 4 * _CHARACTERS * tokens
        while True:
            side = self._kept_side(text, size)
            spans = self._uncut.encode(side, add_special_tokens=False).offsets
            if len(side) == len(text) or len(spans) > 2 * tokens:
                return _MeasuredText(side, spans, len(spans) * len(text) / max(1, len(side)))
            size *= 4

    def _part(self, measured: _MeasuredText, keep: int) -> str:
        """Return the text of so many tokens."""
        text, spans, _ = measured
        if len(spans) <= keep:
            return text
        return text[: spans[keep][0]] if self._cuts_right else text[spans[-keep][0] :]

    @cached_property
    def _uncut(self) -> Tokenizer:
        copy = Tokenizer.from_str(self.core.to_str())
        copy.no_truncation()
        copy.encode_special_tokens = self.core.encode_special_tokens  # which the library does not save
        return copy

    def encode_words(self, texts: Sequence[Sequence[str]]) -> list[Encoding]:
        """Encode texts that are split into words already; ``word_ids`` of an encoding point into the given words."""
        encodings: list[Encoding] = self.core.encode_batch([list(words) for words in texts], is_pretokenized=True)
        return encodings

    def windows(self, encoding: Encoding) -> list[Encoding]:
        """Return the windows of one text, in the order of the text."""
        overflowing = encoding.overflowing
        if not overflowing:  # most texts; looking for its first place would read all its tokens
            return [encoding]
        # The library cuts from the kept side, so that with the left side cut off the last window comes first.
        return sorted([encoding, *overflowing], key=_first_place)

    def is_subword(self, encoding: Encoding, text: str) -> list[bool]:
        """Tell which text tokens continue the word before them, by transformers' two rules.

        A tokenizer with a prefix for continuations (``##``) shows it in the token's length; for others a token
        continues a word where no space stands at its border. The unknown token never does.
        """
        ids = encoding.ids
        continues = []
        for index, (start, end) in text_tokens(encoding):
            if self.has_subword_prefix:
                continues_word = len(self.core.id_to_token(ids[index])) != end - start
            else:
                continues_word = start > 0 and " " not in text[start - 1 : start + 1]
            continues.append(continues_word and ids[index] != self.unk_id)
        return continues


def _first_place(window: Encoding) -> tuple[int, int]:
    """Return where a window's text begins: the word (of texts given as words), and the character in it."""
    tokens = text_tokens(window)
    if not tokens:
        return 0, 0
    index, (start, _) = tokens[0]
    return window.word_ids[index] or 0, start


def text_tokens(encoding: Encoding) -> list[tuple[int, tuple[int, int]]]:
    """Return the place and the span (start, end) of every token that is not a special one the tokenizer added."""
    return [
        (index, span)
        for index, (span, special) in enumerate(zip(encoding.offsets, encoding.special_tokens_mask, strict=True))
        if not special
    ]


def stitched(windows: Sequence[Encoding], stride: int) -> list[tuple[int, int]]:
    """Cover a text's tokens once from overlapping windows: (window, place in it), in the order of the text.

    Of the ``stride`` tokens that two windows share, each gives the half that is farther from its own edge.
    """
    early = stride // 2
    late = stride - early
    cover: list[tuple[int, int]] = []
    for number, window in enumerate(windows):
        places = [index for index, _ in text_tokens(window)]
        # The first and the last window have one edge each at which the text itself ends.
        if number < len(windows) - 1:
            places = places[: len(places) - early]
        if number > 0:
            places = places[late:]
        cover.extend((number, place) for place in places)
    return cover


# Of a text that is cut, so many characters for each token are encoded first: what lies behind cannot matter, and a text
# of 20 MB would take 3 GB. It was enough where at least so many windows are left over, since a token may hang on those
# that follow it closely.
_CHARACTERS = 16
_SURE = 2
_ALIKE = 0.01  # estimates of two numbers of tokens that are nearer than this share are taken for equal

# A pair of fewer characters than this times the length limit makes few windows at most.
_SHORT = 8


_tokenizers: ProcessCache[TextTokenizer] = ProcessCache(limit=32)


def open_tokenizer(bundle: Bundle, lengths: Lengths) -> TextTokenizer:
    """Return this process's tokenizer for a bundle, loading it at first use."""
    return _tokenizers.get((bundle.hash, lengths), lambda: TextTokenizer(bundle, lengths))
