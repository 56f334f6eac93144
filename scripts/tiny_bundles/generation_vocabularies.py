"""Small tokenizers with the special tokens of the published text generators."""

from __future__ import annotations

import functools
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    BartTokenizerFast,
    BloomTokenizerFast,
    CodeGenTokenizerFast,
    GemmaTokenizerFast,
    GPT2TokenizerFast,
    GPTNeoXTokenizerFast,
    LlamaTokenizerFast,
    MBart50TokenizerFast,
    NllbTokenizerFast,
    PegasusTokenizerFast,
    PreTrainedTokenizerFast,
    Qwen2TokenizerFast,
    T5TokenizerFast,
)

from .vocabularies import FAIRSEQ, PIECES, ROBERTA_SPECIALS, Lines, Maker, byte_pairs, sentence_piece

END = "<|endoftext|>"
TURNS = ("<|im_start|>", "<|im_end|>")
LANGUAGES = ("__en__", "__fr__", "__de__")
LOCALES = ("eng_Latn", "fra_Latn", "deu_Latn")


def byte_level(cls: type, specials: tuple[str, ...], template: str = "$A", **tokens: str) -> Maker:
    """Return a maker of byte-level BPE tokenizers: their special tokens come first, `tokens` names their roles."""

    def make(lines: Lines) -> PreTrainedTokenizerFast:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=PIECES, special_tokens=list(specials), initial_alphabet=alphabet, show_progress=False
        )
        tokenizer.train_from_iterator(lines, trainer)
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
        if template != "$A":
            tokenizer.post_processor = with_template(tokenizer, template)
        return cls(tokenizer_object=tokenizer, **tokens)

    return make


def with_template(tokenizer: Tokenizer, template: str) -> processors.TemplateProcessing:
    """Return the post-processor that puts the template's special tokens around a text."""
    known = [(token, tokenizer.token_to_id(token)) for token in template.split() if token != "$A"]
    return processors.TemplateProcessing(single=template, pair=f"{template} $B", special_tokens=known)


def t5_pieces(options: dict[str, object], extra_ids: int) -> Maker:
    """Return a maker of T5's tokenizers, whose texts do not begin with the space of the first piece."""

    def make(lines: Lines) -> PreTrainedTokenizerFast:
        tokenizer = sentence_piece(functools.partial(T5TokenizerFast, extra_ids=extra_ids), options, few_rules=True)(
            lines
        )
        tokenizer.backend_tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
        return tokenizer

    return make


def piece_template(options: dict[str, object], template: str, pad_last: bool = False, **tokens: Any) -> Maker:
    """Return a maker of Unigram tokenizers whose published kin has no fast class."""

    def make(lines: Lines) -> PreTrainedTokenizerFast:
        backend = t5_pieces(options, extra_ids=0)(lines).backend_tokenizer
        if pad_last:
            backend.add_special_tokens(["<pad>"])
        backend.post_processor = with_template(backend, template)
        return PreTrainedTokenizerFast(
            tokenizer_object=backend, model_input_names=["input_ids", "attention_mask"], **tokens
        )

    return make


PAIRS = {"model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity"}
LLAMA = {**PAIRS, "unk_id": 0, "bos_id": 1, "eos_id": 2, "pad_id": -1}
GEMMA = {**PAIRS, "pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3, "add_dummy_prefix": False}
PHI3_TOKENS = {"eos_token": END, "pad_token": END, "additional_special_tokens": ["<|end|>"]}
PHI3 = {**LLAMA, "user_defined_symbols": [END, "<|end|>"]}
T5 = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
MARIAN = {"eos_id": 0, "unk_id": 1, "bos_id": -1, "pad_id": -1}
NLLB = {**FAIRSEQ, "model_type": "bpe"}
M2M = {"bos_id": 0, "pad_id": 1, "eos_id": 2, "unk_id": 3, "control_symbols": list(LANGUAGES)}

OPT = {"bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>", "pad_token": "<pad>"}
BLOOM = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
GENERATION_TOKENIZERS: dict[str, Maker] = {
    "gpt2": byte_level(GPT2TokenizerFast, (END,), bos_token=END, eos_token=END, unk_token=END),
    "gpt_neox": byte_level(
        GPTNeoXTokenizerFast, (END, "<|padding|>"), bos_token=END, eos_token=END, unk_token=END, pad_token="<|padding|>"
    ),
    "opt": byte_level(GPT2TokenizerFast, ("<s>", "<pad>", "</s>", "<unk>"), "</s> $A", **OPT),
    "bloom": byte_level(BloomTokenizerFast, ("<unk>", "<s>", "</s>", "<pad>"), padding_side="left", **BLOOM),
    "qwen2": byte_level(
        Qwen2TokenizerFast, (END, *TURNS), eos_token=TURNS[1], pad_token=END, additional_special_tokens=list(TURNS)
    ),
    "phi": byte_level(CodeGenTokenizerFast, (END,), bos_token=END, eos_token=END, unk_token=END),
    "llama": sentence_piece(LlamaTokenizerFast, LLAMA, split_first=False),
    "phi3": sentence_piece(functools.partial(LlamaTokenizerFast, **PHI3_TOKENS), PHI3, split_first=False),
    "gemma": sentence_piece(GemmaTokenizerFast, GEMMA, split_first=False),
    "t5": t5_pieces(T5, extra_ids=4),
    "bart": byte_pairs(BartTokenizerFast, ROBERTA_SPECIALS),
    "mbart": sentence_piece(
        functools.partial(MBart50TokenizerFast, src_lang="en_XX", tgt_lang="fr_XX"), FAIRSEQ, few_rules=True
    ),
    "pegasus": sentence_piece(functools.partial(PegasusTokenizerFast, offset=5), T5, few_rules=True),
    "marian": piece_template(MARIAN, "$A </s>", pad_last=True, eos_token="</s>", unk_token="<unk>", pad_token="<pad>"),
    "m2m_100": piece_template(M2M, "__en__ $A </s>", additional_special_tokens=list(LANGUAGES), **BLOOM),
    "nllb": sentence_piece(
        functools.partial(NllbTokenizerFast, additional_special_tokens=list(LOCALES)), NLLB, few_rules=True
    ),
}
