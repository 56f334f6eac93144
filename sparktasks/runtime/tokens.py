"""Text to token ids and back to offsets, with the bundle's own fast tokenizer and transformers' rules around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

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
    if asked is not None and bundle.positions is not None and asked > bundle.positions:
        raise ParamError(
            f"maxLength={asked} is more than the {bundle.positions} positions that the model in {bundle.folder} knows"
        )
    return bundle.max_length if asked is None else asked


class TextTokenizer:
    """A bundle's tokenizer: no padding, cut to windows as `Lengths` says.

    What a window leaves over is in ``overflowing`` of its encoding.
    """

    def __init__(self, bundle: Bundle, lengths: Lengths) -> None:
        self.files = read_tokenizer_files(bundle)
        self.core = load_tokenizer(bundle, self.files)
        self.unk_id: int | None = self._id_of(self.files.token("unk_token"))
        self.has_subword_prefix = bool(getattr(self.core.model, "continuing_subword_prefix", None))
        self.pad_ids = self._pad_ids(bundle)
        if lengths.words:
            set_state(self.core, "pre_tokenizer", {"add_prefix_space": True}, kind="ByteLevel")
        if lengths.lower:
            self.core.normalizer = Normalizers([Lowercase(), *filter(None, [self.core.normalizer])])
        self.max_length = lengths.max_length
        self._reads_windows = lengths.windows
        self._cuts_right = not self.files.cuts_left if lengths.side is None else lengths.side == "right"
        if lengths.max_length is not None:
            self._limit(lengths)

    @property
    def pad_id(self) -> int:
        """The id that fills up shorter texts."""
        return self.pad_ids[0]

    def _limit(self, lengths: Lengths) -> None:
        special = self.core.num_special_tokens_to_add(is_pair=lengths.pairs)
        room = (lengths.max_length or 0) - special
        if room < 1 + lengths.pairs or lengths.stride >= room:
            raise ParamError(
                f"maxLength={lengths.max_length} with stride={lengths.stride} leaves no room for text: "
                f"{special} of the tokens are special, and the stride must be smaller than the rest"
            )
        self.core.enable_truncation(
            lengths.max_length, stride=lengths.stride, direction="right" if self._cuts_right else "left"
        )

    def _id_of(self, token: str | None) -> int | None:
        found: int | None = self.core.token_to_id(token) if token else None
        return found

    def _pad_ids(self, bundle: Bundle) -> tuple[int, ...]:
        """Return the ids that may be meant by padding, the likeliest first.

        Graphs that count tokens (positions of RoBERTa, the last token of a decoder) were exported with the id of
        config.json; the tokenizer may have another one.
        """
        rows = bundle.graph.embedding_rows
        known = []
        for index in (bundle.config.get("pad_token_id"), self._id_of(self.files.token("pad_token"))):
            if index is not None and index >= 0 and (rows is None or index < rows):
                known.append(int(index))
        return tuple(dict.fromkeys([*known, 0]))

    def encode(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, offsets: bool = True, special: bool = True
    ) -> list[Encoding]:
        """Encode texts, or pairs of texts; without ``offsets`` it is faster and the encodings have none.

        ``special`` says whether the tokenizer's special tokens are added.
        """
        encode = self.core.encode_batch if offsets else self.core.encode_batch_fast
        if pairs is not None:
            found: list[Encoding] = encode([self._shortened(*both) for both in zip(texts, pairs, strict=True)])
            return found
        cuts = self.max_length is not None and not self._reads_windows and (self._cuts_right or not offsets)
        size = _CHARACTERS * self.max_length if cuts and self.max_length is not None else None
        found = encode([text if size is None else self._side(text, size) for text in texts], add_special_tokens=special)
        if size is not None:
            self._read_more(texts, found, size, encode, special)
        return found

    def _read_more(
        self,
        texts: Sequence[str],
        found: list[Encoding],
        size: int,
        encode: Callable[..., list[Encoding]],
        special: bool,
    ) -> None:
        """Encode more of those texts whose first so many characters make too few tokens, until it is enough or all."""
        while True:
            short = [
                place for place, text in enumerate(texts) if len(text) > size and len(found[place].overflowing) < _SURE
            ]
            if not short:
                return
            size *= 4
            again = encode([self._side(texts[place], size) for place in short], add_special_tokens=special)
            for place, encoding in zip(short, again, strict=True):
                found[place] = encoding

    def _side(self, text: str, size: int) -> str:
        """Return so many characters of the side of a text that is kept."""
        if len(text) <= size:
            return text
        return text[:size] if self._cuts_right else text[-size:]

    def token_id(self, token: str) -> int | None:
        """Return the id of a token; None where the vocabulary lacks it."""
        found: int | None = self.core.token_to_id(token)
        return found

    def decode(self, ids: Sequence[int], special: bool = False) -> str:
        """Join tokens to a text; special ones are left out unless ``special``."""
        return str(self.core.decode(list(ids), skip_special_tokens=not special))

    def _shortened(self, text: str, pair: str) -> tuple[str, str]:
        """Cut off what no pair can hold: the library would make a window for every part of one text with every part of
        the other.

        What is kept is longer than a pair, and the longer text stays the longer one: that decides which gives up more.
        """
        if self.max_length is None or len(text) + len(pair) <= _SHORT * self.max_length:
            return text, pair
        keep = 2 * self.max_length
        sides = [self._with_tokens(each, keep) for each in (text, pair)]
        offsets = [self._uncut.encode(side, add_special_tokens=False).offsets for side in sides]
        # Of a very long text the number of tokens is estimated: only which is longer matters.
        first, second = (
            len(spans) * len(each) / max(1, len(side))
            for spans, each, side in zip(offsets, (text, pair), sides, strict=True)
        )
        alike = sides != [text, pair] and abs(first - second) < _ALIKE * max(first, second)
        return (
            self._part(sides[0], offsets[0], keep + (first > second and not alike)),
            self._part(sides[1], offsets[1], keep + (second > first and not alike)),
        )

    def _with_tokens(self, text: str, tokens: int) -> str:
        """Return the kept side of a very long text, as far as it surely has so many tokens."""
        size = 4 * _CHARACTERS * tokens
        while size < len(text):
            if len(self._uncut.encode(self._side(text, size), add_special_tokens=False).ids) > 2 * tokens:
                return self._side(text, size)
            size *= 4
        return text

    def _part(self, text: str, offsets: list[tuple[int, int]], keep: int) -> str:
        if len(offsets) <= keep:
            return text
        return text[: offsets[keep][0]] if self._cuts_right else text[offsets[-keep][0] :]

    @cached_property
    def _uncut(self) -> Tokenizer:
        copy = Tokenizer.from_str(self.core.to_str())
        copy.no_truncation()
        copy.encode_special_tokens = self.core.encode_special_tokens  # which the library does not save
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

        A tokenizer with a prefix for continuations (``##``) shows it in the token's length; for others a token
        continues a word where no space stands at its border. The unknown token never does.
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
        first = late if number > 0 else 0
        last = len(places) - (early if number < len(windows) - 1 else 0)
        cover.extend((number, place) for place in places[first:last])
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
