"""The literal table of small tokenizers, each with the special tokens and ids of a published one."""

from __future__ import annotations

from functools import partial

from transformers import (
    AlbertTokenizerFast,
    BartTokenizerFast,
    BertTokenizerFast,
    BloomTokenizerFast,
    CamembertTokenizerFast,
    CodeGenTokenizerFast,
    ConvBertTokenizerFast,
    DebertaTokenizerFast,
    DebertaV2TokenizerFast,
    DistilBertTokenizerFast,
    ElectraTokenizerFast,
    GemmaTokenizerFast,
    GPT2TokenizerFast,
    GPTNeoXTokenizerFast,
    LlamaTokenizerFast,
    MBart50TokenizerFast,
    MPNetTokenizerFast,
    NllbTokenizerFast,
    PegasusTokenizerFast,
    PreTrainedTokenizerFast,
    Qwen2TokenizerFast,
    RobertaTokenizerFast,
    XLMRobertaTokenizerFast,
    XLNetTokenizerFast,
)

from .samples import corpus
from .vocabularies import (
    Maker,
    byte_level,
    byte_pairs,
    modern_bert,
    piece_template,
    sentence_piece,
    t5_pieces,
    word_piece,
)

# -- special tokens, in the order of their ids

BERT_SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
MPNET_SPECIALS = ("<s>", "<pad>", "</s>", "[UNK]", "<mask>")
ROBERTA_SPECIALS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
DEBERTA_SPECIALS = ("[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]")
MODERNBERT_SPECIALS = ("[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]")
OPT_SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
BLOOM_SPECIALS = ("<unk>", "<s>", "</s>", "<pad>")
END = "<|endoftext|>"
TURNS = ("<|im_start|>", "<|im_end|>")
LANGUAGES = ["__en__", "__fr__", "__de__"]
LOCALES = ["eng_Latn", "fra_Latn", "deu_Latn"]

# -- options of SentencePiece's trainer

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
PAIRS = {"model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity"}
LLAMA = {**PAIRS, "unk_id": 0, "bos_id": 1, "eos_id": 2, "pad_id": -1}
GEMMA = {**PAIRS, "pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3, "add_dummy_prefix": False}
PHI3 = {**LLAMA, "user_defined_symbols": [END, "<|end|>"]}
T5 = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
MARIAN = {"eos_id": 0, "unk_id": 1, "bos_id": -1, "pad_id": -1}
NLLB = {**FAIRSEQ, "model_type": "bpe"}
M2M = {"bos_id": 0, "pad_id": 1, "eos_id": 2, "unk_id": 3, "control_symbols": LANGUAGES}

# -- roles of tokens, where the class does not know them

ENDS = {"bos_token": END, "eos_token": END, "unk_token": END}
OPT = {"bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>", "pad_token": "<pad>"}
BLOOM = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
QWEN2 = {"eos_token": TURNS[1], "pad_token": END, "additional_special_tokens": list(TURNS)}
PHI3_TOKENS = {"eos_token": END, "pad_token": END, "additional_special_tokens": ["<|end|>"]}
MARIAN_TOKENS = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
MODERNBERT = {
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "mask_token": "[MASK]",
}
MBART = {"src_lang": "en_XX", "tgt_lang": "fr_XX"}

TOKENIZERS: dict[str, Maker] = {
    "bert": word_piece(BertTokenizerFast, BERT_SPECIALS, lower=True),
    "distilbert": word_piece(DistilBertTokenizerFast, BERT_SPECIALS, lower=False),
    "electra": word_piece(ElectraTokenizerFast, BERT_SPECIALS, lower=True),
    "convbert": word_piece(ConvBertTokenizerFast, BERT_SPECIALS, lower=True),
    "mpnet": word_piece(MPNetTokenizerFast, MPNET_SPECIALS, lower=True),
    "roberta": byte_pairs(RobertaTokenizerFast, ROBERTA_SPECIALS),
    "deberta": byte_pairs(DebertaTokenizerFast, DEBERTA_SPECIALS),
    "bart": byte_pairs(BartTokenizerFast, ROBERTA_SPECIALS),
    "modernbert": modern_bert(MODERNBERT_SPECIALS, **MODERNBERT),
    "gpt2": byte_level(GPT2TokenizerFast, (END,), **ENDS),
    "gpt_neox": byte_level(GPTNeoXTokenizerFast, (END, "<|padding|>"), **ENDS, pad_token="<|padding|>"),
    "opt": byte_level(GPT2TokenizerFast, OPT_SPECIALS, "</s> $A", **OPT),
    "bloom": byte_level(BloomTokenizerFast, BLOOM_SPECIALS, padding_side="left", **BLOOM),
    "qwen2": byte_level(Qwen2TokenizerFast, (END, *TURNS), **QWEN2),
    "phi": byte_level(CodeGenTokenizerFast, (END,), **ENDS),
    "xlm-roberta": sentence_piece(XLMRobertaTokenizerFast, FAIRSEQ),
    "xlm-roberta-small": sentence_piece(XLMRobertaTokenizerFast, FAIRSEQ, few_rules=True),
    "camembert": sentence_piece(CamembertTokenizerFast, FAIRSEQ, split_first=False),
    "albert": sentence_piece(AlbertTokenizerFast, ALBERT),
    "deberta-v2": sentence_piece(DebertaV2TokenizerFast, DEBERTA_V3, split_first=False),
    "xlnet": sentence_piece(XLNetTokenizerFast, XLNET, split_first=False),
    "xlnet-small": sentence_piece(XLNetTokenizerFast, XLNET, few_rules=True),
    "llama": sentence_piece(LlamaTokenizerFast, LLAMA, split_first=False),
    "phi3": sentence_piece(partial(LlamaTokenizerFast, **PHI3_TOKENS), PHI3, split_first=False),
    "gemma": sentence_piece(GemmaTokenizerFast, GEMMA, split_first=False),
    "mbart": sentence_piece(partial(MBart50TokenizerFast, **MBART), FAIRSEQ, few_rules=True),
    "pegasus": sentence_piece(partial(PegasusTokenizerFast, offset=5), T5, few_rules=True),
    "nllb": sentence_piece(partial(NllbTokenizerFast, additional_special_tokens=LOCALES), NLLB, few_rules=True),
    "t5": t5_pieces(T5, extra_ids=4),
    "marian": piece_template(MARIAN, "$A </s>", pad_last=True, **MARIAN_TOKENS),
    "m2m_100": piece_template(M2M, "__en__ $A </s>", additional_special_tokens=LANGUAGES, **BLOOM),
}


def make_tokenizer(name: str, max_length: int, options: dict[str, object]) -> PreTrainedTokenizerFast:
    """Train a tokenizer on the committed corpus, and write its length limit and options into its config."""
    tokenizer = TOKENIZERS[name](corpus())
    settings = {"model_max_length": max_length, **options}
    for key, value in settings.items():
        setattr(tokenizer, key, value)
    tokenizer.init_kwargs.update(settings)
    return tokenizer
