"""Makers of small tokenizers: vocabularies trained on a corpus, in the forms that the published ones have."""

from __future__ import annotations

import functools
import json
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sentencepiece
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast, T5TokenizerFast

Lines = list[str]
Maker = Callable[[Lines], PreTrainedTokenizerFast]

PIECES = 600

# SentencePiece's own nmt_nfkc table weighs 240 KB; the committed bundles carry this excerpt of it.
FEW_RULES = {
    **{chr(c): " " for c in (0x09, 0x0A, 0x0D, 0xA0, 0x1680, 0x2009, 0x200B, 0x2028, 0x3000, 0xFEFF)},
    **{chr(c): "" for c in (0x01, 0x1F, 0x7F, 0xAD, 0x200E, 0x200F)},
    **{chr(c + 0xFEE0): chr(c) for c in range(0x21, 0x7F)},
    "ﬁ": "fi",
    "ﬂ": "fl",
    "½": "1⁄2",
    "²": "2",
    "₁": "1",
    "№": "No",
    "™": "TM",
    "①": "1",
    "…": "...",
    "e\u0301": "é",
    "a\u0300": "à",
    "n\u0303": "ñ",
    "o\u0308": "ö",
    "u\u0308": "ü",
    "c\u0327": "ç",
}


def word_piece(cls: type, specials: tuple[str, ...], lower: bool) -> Maker:
    """Return a maker of WordPiece tokenizers of the given fast class."""

    def make(lines: Lines) -> PreTrainedTokenizerFast:
        with tempfile.TemporaryDirectory() as folder:
            vocab = Path(folder, "vocab.txt")
            vocab.write_text("\n".join(specials), encoding="utf-8")
            backend = cls(vocab_file=str(vocab), do_lower_case=lower).backend_tokenizer
            pieces = frequent_pieces(words_of(backend, lines), PIECES - len(specials))
            vocab.write_text("\n".join([*specials, *pieces]), encoding="utf-8")
            return cls(vocab_file=str(vocab), do_lower_case=lower)

    return make


def words_of(backend: Tokenizer, lines: Lines) -> Counter[str]:
    """Count the words that the tokenizer's normalizer and pre-tokenizer make of the lines."""
    words: Counter[str] = Counter()
    for line in lines:
        normalized = backend.normalizer.normalize_str(line)
        words.update(word for word, _ in backend.pre_tokenizer.pre_tokenize_str(normalized))
    return words


def frequent_pieces(words: Counter[str], size: int) -> list[str]:
    """Return `size` pieces: frequent characters, then the prefixes and inner parts that cover most text.

    Counted, not trained: the library's WordPiece trainer gives another vocabulary in every process.
    """
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for start in range(len(word)):
            for end in range(start + 1, min(len(word), start + 6) + 1):
                counts[("##" if start else "") + word[start:end]] += count * (end - start)
    ranked = sorted(counts, key=lambda piece: (-counts[piece], piece))
    letters = [piece for piece in ranked if len(piece.removeprefix("##")) == 1]
    longer = [piece for piece in ranked if len(piece.removeprefix("##")) > 1]
    kept = letters[: size // 2]
    return [*sorted(kept), *longer[: size - len(kept)]]


def byte_pairs(cls: type, specials: tuple[str, ...]) -> Maker:
    """Return a maker of the byte-level BPE tokenizers that a fast class trains by itself."""

    def make(lines: Lines) -> PreTrainedTokenizerFast:
        with tempfile.TemporaryDirectory() as folder:
            vocab, merges = Path(folder, "vocab.json"), Path(folder, "merges.txt")
            vocab.write_text(json.dumps({token: i for i, token in enumerate(specials)}), encoding="utf-8")
            merges.write_text("#version: 0.2\n", encoding="utf-8")
            blank = cls(vocab_file=str(vocab), merges_file=str(merges))
        return blank.train_new_from_iterator(lines, PIECES, show_progress=False)

    return make


def byte_level(cls: type, specials: tuple[str, ...], template: str = "$A", **tokens: Any) -> Maker:
    """Return a maker of byte-level BPE tokenizers: their special tokens come first, `tokens` names their roles."""

    def make(lines: Lines) -> PreTrainedTokenizerFast:
        tokenizer = trained_bytes(lines, specials)
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
        if template != "$A":
            tokenizer.post_processor = with_template(tokenizer, template, f"{template} $B")
        return cls(tokenizer_object=tokenizer, **tokens)

    return make


def modern_bert(specials: tuple[str, ...], **tokens: Any) -> Maker:
    """Return a maker of ModernBERT-like tokenizers: NFC, byte-level BPE, offsets that keep the leading space."""

    def make(lines: Lines) -> PreTrainedTokenizerFast:
        tokenizer = trained_bytes(lines, specials, normalizers.NFC())
        cls, sep = tokens["cls_token"], tokens["sep_token"]
        single = f"{cls} $A {sep}"
        tokenizer.post_processor = with_template(tokenizer, single, f"{single} $B:0 {sep}")
        return PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            model_input_names=["input_ids", "attention_mask"],
            clean_up_tokenization_spaces=True,
            **tokens,
        )

    return make


def trained_bytes(lines: Lines, specials: tuple[str, ...], normalizer: Any = None) -> Tokenizer:
    """Train byte-level BPE with every byte in its alphabet."""
    tokenizer = Tokenizer(models.BPE())
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=PIECES, special_tokens=list(specials), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(lines, trainer)
    return tokenizer


def with_template(tokenizer: Tokenizer, single: str, pair: str) -> processors.TemplateProcessing:
    """Return the post-processor that puts the templates' special tokens around a text or two."""
    specials = dict.fromkeys(token for token in single.split() if not token.startswith("$"))
    ids = [(token, tokenizer.token_to_id(token)) for token in specials]
    return processors.TemplateProcessing(single=single, pair=pair, special_tokens=ids)


def sentence_piece(cls: Any, options: dict[str, object], split_first: bool = True, few_rules: bool = False) -> Maker:
    """Return a maker of SentencePiece tokenizers; `split_first` is the pre-tokenizer of the older published files."""

    def make(lines: Lines) -> PreTrainedTokenizerFast:
        with tempfile.TemporaryDirectory() as folder:
            tokenizer = cls(vocab_file=train_pieces(lines, Path(folder), few_rules, options))
        if split_first:
            metaspace = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
            parts = [pre_tokenizers.WhitespaceSplit(), metaspace]
            tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(parts)
        return tokenizer

    return make


def train_pieces(lines: Lines, folder: Path, few_rules: bool, options: dict[str, object]) -> str:
    """Train a SentencePiece model in `folder` and return its path; `few_rules` takes the short table."""
    text, rules = folder / "text.txt", folder / "rules.tsv"
    text.write_text("\n".join(lines), encoding="utf-8")
    rules.write_text("".join(f"{hexes(k)}\t{hexes(v)}\n" for k, v in sorted(FEW_RULES.items())), encoding="utf-8")
    normalization = {"normalization_rule_tsv": str(rules)} if few_rules else {"normalization_rule_name": "nmt_nfkc"}
    sentencepiece.SentencePieceTrainer.train(
        input=str(text),
        model_prefix=str(folder / "spm"),
        vocab_size=PIECES,
        character_coverage=0.997,
        num_threads=1,
        minloglevel=2,
        **{"model_type": "unigram", **normalization, **options},
    )
    return str(folder / "spm.model")


def hexes(text: str) -> str:
    """Return the code points of `text` as SentencePiece's rule files write them."""
    return " ".join(f"{ord(char):X}" for char in text)


def t5_pieces(options: dict[str, object], extra_ids: int) -> Maker:
    """Return a maker of T5's tokenizers, whose texts do not begin with the space of the first piece."""
    plain = sentence_piece(functools.partial(T5TokenizerFast, extra_ids=extra_ids), options, few_rules=True)

    def make(lines: Lines) -> PreTrainedTokenizerFast:
        tokenizer = plain(lines)
        tokenizer.backend_tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
        return tokenizer

    return make


def piece_template(options: dict[str, object], template: str, pad_last: bool = False, **tokens: Any) -> Maker:
    """Return a maker of Unigram tokenizers whose published kin has no fast class."""
    plain = t5_pieces(options, extra_ids=0)

    def make(lines: Lines) -> PreTrainedTokenizerFast:
        backend = plain(lines).backend_tokenizer
        if pad_last:
            backend.add_special_tokens(["<pad>"])
        backend.post_processor = with_template(backend, template, f"{template} $B")
        inputs = ["input_ids", "attention_mask"]
        return PreTrainedTokenizerFast(tokenizer_object=backend, model_input_names=inputs, **tokens)

    return make
