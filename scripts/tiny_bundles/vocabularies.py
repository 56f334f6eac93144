"""Small tokenizers with the normalizers, post-processors and special tokens of the published ones."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import sentencepiece
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AlbertTokenizerFast,
    BertTokenizerFast,
    CamembertTokenizerFast,
    ConvBertTokenizerFast,
    DebertaTokenizerFast,
    DebertaV2TokenizerFast,
    DistilBertTokenizerFast,
    ElectraTokenizerFast,
    MPNetTokenizerFast,
    PreTrainedTokenizerFast,
    RobertaTokenizerFast,
    XLMRobertaTokenizerFast,
    XLNetTokenizerFast,
)

Lines = list[str]
Maker = Callable[[Lines], PreTrainedTokenizerFast]

BERT_SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
MPNET_SPECIALS = ("<s>", "<pad>", "</s>", "[UNK]", "<mask>")
ROBERTA_SPECIALS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
DEBERTA_SPECIALS = ("[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]")
MODERNBERT_SPECIALS = ("[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]")
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
    normal = (backend.normalizer.normalize_str(line) for line in lines)
    return Counter(word for line in normal for word, _ in backend.pre_tokenizer.pre_tokenize_str(line))


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
    """Return a maker of byte-level BPE tokenizers of the given fast class."""

    def make(lines: Lines) -> PreTrainedTokenizerFast:
        with tempfile.TemporaryDirectory() as folder:
            vocab, merges = Path(folder, "vocab.json"), Path(folder, "merges.txt")
            vocab.write_text(json.dumps({token: i for i, token in enumerate(specials)}), encoding="utf-8")
            merges.write_text("#version: 0.2\n", encoding="utf-8")
            blank = cls(vocab_file=str(vocab), merges_file=str(merges))
        return blank.train_new_from_iterator(lines, PIECES, show_progress=False)

    return make


def modern_bert(lines: Lines) -> PreTrainedTokenizerFast:
    """Return a ModernBERT-like tokenizer: NFC, byte-level BPE, offsets that keep the leading space."""
    unk, cls, sep, pad, mask = MODERNBERT_SPECIALS
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=PIECES, special_tokens=list(MODERNBERT_SPECIALS), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(lines, trainer)
    ids = [(token, tokenizer.token_to_id(token)) for token in (cls, sep)]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0", pair=f"{cls}:0 $A:0 {sep}:0 $B:0 {sep}:0", special_tokens=ids
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token=unk,
        cls_token=cls,
        sep_token=sep,
        pad_token=pad,
        mask_token=mask,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=True,
    )


def sentence_piece(cls: type, options: dict[str, object], split_first: bool = True, few_rules: bool = False) -> Maker:
    """Return a maker of Unigram tokenizers; `split_first` is the pre-tokenizer of the older published files."""

    def make(lines: Lines) -> PreTrainedTokenizerFast:
        with tempfile.TemporaryDirectory() as folder:
            tokenizer = cls(vocab_file=train_unigram(lines, Path(folder), few_rules, options))
        if split_first:
            metaspace = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
            parts = [pre_tokenizers.WhitespaceSplit(), metaspace]
            tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(parts)
        return tokenizer

    return make


def train_unigram(lines: Lines, folder: Path, few_rules: bool, options: dict[str, object]) -> str:
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


FAIRSEQ = {"unk_id": 0, "bos_id": 1, "eos_id": 2, "pad_id": -1}
ALBERT = {
    "pad_id": 0,
    "unk_id": 1,
    "bos_id": -1,
    "eos_id": -1,
    "control_symbols": ["[CLS]", "[SEP]"],
    "user_defined_symbols": ["[MASK]"],
}
DEBERTA_V3 = {
    "pad_id": 0,
    "bos_id": 1,
    "eos_id": 2,
    "unk_id": 3,
    "pad_piece": "[PAD]",
    "bos_piece": "[CLS]",
    "eos_piece": "[SEP]",
    "unk_piece": "[UNK]",
}
XLNET = {**FAIRSEQ, "control_symbols": ["<cls>", "<sep>", "<pad>", "<mask>", "<eod>", "<eop>"]}

TOKENIZERS: dict[str, Maker] = {
    "bert": word_piece(BertTokenizerFast, BERT_SPECIALS, lower=True),
    "distilbert": word_piece(DistilBertTokenizerFast, BERT_SPECIALS, lower=False),
    "electra": word_piece(ElectraTokenizerFast, BERT_SPECIALS, lower=True),
    "convbert": word_piece(ConvBertTokenizerFast, BERT_SPECIALS, lower=True),
    "mpnet": word_piece(MPNetTokenizerFast, MPNET_SPECIALS, lower=True),
    "roberta": byte_pairs(RobertaTokenizerFast, ROBERTA_SPECIALS),
    "deberta": byte_pairs(DebertaTokenizerFast, DEBERTA_SPECIALS),
    "modernbert": modern_bert,
    "xlm-roberta": sentence_piece(XLMRobertaTokenizerFast, FAIRSEQ),
    "xlm-roberta-small": sentence_piece(XLMRobertaTokenizerFast, FAIRSEQ, few_rules=True),
    "camembert": sentence_piece(CamembertTokenizerFast, FAIRSEQ, split_first=False),
    "albert": sentence_piece(AlbertTokenizerFast, ALBERT),
    "deberta-v2": sentence_piece(DebertaV2TokenizerFast, DEBERTA_V3, split_first=False),
    "xlnet": sentence_piece(XLNetTokenizerFast, XLNET, split_first=False),
    "xlnet-small": sentence_piece(XLNetTokenizerFast, XLNET, few_rules=True),
}
