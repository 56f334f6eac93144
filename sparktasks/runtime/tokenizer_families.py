"""What transformers' fast tokenizer classes add to the files of a folder (version 4.57.6): a literal table.

Most folders say everything in their files. Older ones, and those that a tool wrote by hand, leave it to the class:
special tokens that no file names, tokens put around a text, normalizers that a flag of tokenizer_config.json decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

LANGUAGE_BEHIND = "behind"  # text, end token, language
LANGUAGE_BEFORE = "before"  # language, text, end token


@dataclass(frozen=True)
class Family:
    """The rules of one tokenizer class.

    ``special`` are the special tokens of a folder that names none. ``type_ids`` tells whether the model is given
    token types, which tell the two texts of a pair apart. ``affixes`` tells whether ``add_bos_token`` and
    ``add_eos_token`` replace the post-processor of tokenizer.json; ``adds_bos`` is the first one's default.
    ``normalizer`` names the flags of tokenizer_config.json that overwrite a BertNormalizer's fields.
    ``prefix_space`` is the default of ``add_prefix_space``, None where the class leaves the pre-tokenizer alone.
    """

    special: Mapping[str, str] = field(default_factory=dict)
    additional: tuple[str, ...] = ()
    type_ids: bool = False
    pads_left: bool = False
    pad_type_id: int = 0
    affixes: bool = False
    adds_bos: bool = False
    normalizer: Mapping[str, tuple[str, Any]] = field(default_factory=dict)
    trims_offsets: bool = False
    prefix_space: bool | None = False
    language: str = ""
    language_side: str = ""


def _special(**tokens: str) -> dict[str, str]:
    return {f"{role}_token": token for role, token in tokens.items()}


_BERT = _special(unk="[UNK]", sep="[SEP]", pad="[PAD]", cls="[CLS]", mask="[MASK]")
_DEBERTA = _special(bos="[CLS]", eos="[SEP]") | _BERT
_ROBERTA = _special(bos="<s>", eos="</s>", unk="<unk>", sep="</s>", pad="<pad>", cls="<s>", mask="<mask>")
_ALBERT = _special(bos="[CLS]", eos="[SEP]", unk="<unk>", sep="[SEP]", pad="<pad>", cls="[CLS]", mask="[MASK]")
_GPT2 = _special(bos="<|endoftext|>", eos="<|endoftext|>", unk="<|endoftext|>")
_LLAMA = _special(bos="<s>", eos="</s>", unk="<unk>")
_T5 = _special(eos="</s>", unk="<unk>", pad="<pad>")
_XLNET = _special(bos="<s>", eos="</s>", unk="<unk>", sep="<sep>", pad="<pad>", cls="<cls>", mask="<mask>")

# Field of a BertNormalizer: the flag that overwrites it, and the flag's default.
_CASE = {"lowercase": ("do_lower_case", True), "strip_accents": ("strip_accents", None)}
_CASE_AND_CHINESE = _CASE | {"handle_chinese_chars": ("tokenize_chinese_chars", True)}

_T5_SENTINELS = tuple(f"<extra_id_{number}>" for number in range(100))
_PEGASUS_MASKS = ("<mask_1>", *(f"<unk_{number}>" for number in range(2, 103)))
_CODE_LLAMA = ("▁<PRE>", "▁<MID>", "▁<SUF>", "▁<EOT>")

GENERIC = Family(type_ids=True)

FAMILIES: dict[str, Family] = {
    **dict.fromkeys(
        (
            "Bert",
            "ConvBert",
            "DPRQuestionEncoder",
            "Electra",
            "LayoutLM",
            "Lxmert",
            "MobileBert",
            "Realm",
            "SqueezeBert",
        ),
        Family(_BERT, type_ids=True, normalizer=_CASE_AND_CHINESE),
    ),
    **dict.fromkeys(("LayoutLMv2", "RoFormer", "Splinter"), Family(_BERT, type_ids=True, normalizer=_CASE)),
    **dict.fromkeys(("DistilBert", "RetriBert"), Family(_BERT, normalizer=_CASE_AND_CHINESE)),
    "Funnel": Family(_XLNET, type_ids=True, normalizer=_CASE_AND_CHINESE),
    "MPNet": Family(_ROBERTA | {"unk_token": "[UNK]"}, normalizer=_CASE),
    "Deberta": Family(_DEBERTA, type_ids=True),
    "DebertaV2": Family(_DEBERTA, type_ids=True),
    **dict.fromkeys(("Albert", "RemBert"), Family(_ALBERT, type_ids=True)),
    "BigBird": Family(_ROBERTA | {"sep_token": "[SEP]", "cls_token": "[CLS]", "mask_token": "[MASK]"}),
    "FNet": Family(_special(unk="<unk>", sep="[SEP]", pad="<pad>", cls="[CLS]", mask="[MASK]"), type_ids=True),
    "Herbert": Family(_special(unk="<unk>", sep="</s>", pad="<pad>", cls="<s>", mask="<mask>"), type_ids=True),
    **dict.fromkeys(
        ("Bart", "Blenderbot", "LED", "Longformer", "Mvp", "Roberta"), Family(_ROBERTA, trims_offsets=True)
    ),
    "LayoutLMv3": Family(_ROBERTA, trims_offsets=True, prefix_space=True),
    **dict.fromkeys(("Barthez", "XLMRoberta", "LayoutXLM"), Family(_ROBERTA)),
    "Camembert": Family(_ROBERTA, ("<s>NOTUSED", "</s>NOTUSED", "<unk>NOTUSED")),
    "XGLM": Family(_special(bos="<s>", eos="</s>", unk="<unk>", sep="</s>", pad="<pad>", cls="<s>")),
    "XLNet": Family(_XLNET, ("<eop>", "<eod>"), type_ids=True, pads_left=True, pad_type_id=3),
    "Cpm": Family(_XLNET, ("<eop>", "<eod>"), type_ids=True, pads_left=True, pad_type_id=3),
    **dict.fromkeys(("GPT2", "CodeGen", "Whisper"), Family(_GPT2)),
    "GPTNeoX": Family(_GPT2, affixes=True),
    "Qwen2": Family(_special(eos="<|endoftext|>", unk="<|endoftext|>", pad="<|endoftext|>")),
    "Bloom": Family(_special(bos="<s>", eos="</s>", unk="<unk>", pad="<pad>")),
    "OpenAIGPT": Family(_special(unk="<unk>")),
    "Reformer": Family(_special(eos="</s>", unk="<unk>")),
    "Llama": Family(_LLAMA, pads_left=True, affixes=True, adds_bos=True, prefix_space=None),
    "CodeLlama": Family(_LLAMA, _CODE_LLAMA, pads_left=True, affixes=True, adds_bos=True),
    "Gemma": Family(
        _special(bos="<bos>", eos="<eos>", unk="<unk>", pad="<pad>"), pads_left=True, affixes=True, adds_bos=True
    ),
    "Cohere": Family(
        _special(bos="<BOS_TOKEN>", eos="<|END_OF_TURN_TOKEN|>", unk="<UNK>"),
        pads_left=True,
        affixes=True,
        adds_bos=True,
    ),
    **dict.fromkeys(("T5", "MT5"), Family(_T5, _T5_SENTINELS, prefix_space=None)),
    "Udop": Family(_T5 | {"sep_token": "</s>"}),
    "Pegasus": Family(_T5 | {"mask_token": "<mask_2>"}, _PEGASUS_MASKS),
    "MBart": Family(_ROBERTA, language="en_XX", language_side=LANGUAGE_BEHIND),
    "MBart50": Family(
        _special(eos="</s>", unk="<unk>", sep="</s>", pad="<pad>", cls="<s>", mask="<mask>"),
        language="en_XX",
        language_side=LANGUAGE_BEFORE,
    ),
    "Nllb": Family(_ROBERTA, language="eng_Latn", language_side=LANGUAGE_BEFORE),
    "CLIP": Family(_special(bos="<|startoftext|>", eos="<|endoftext|>", unk="<|endoftext|>", pad="<|endoftext|>")),
}
"""The rules of a class, by its name without ``Tokenizer`` and ``Fast``."""

MODEL_FAMILIES: dict[str, str] = {
    **dict.fromkeys(("bert", "ernie", "megatron-bert", "nezha", "visual_bert", "blip", "chinese_clip"), "Bert"),
    **dict.fromkeys(("albert", "nystromformer", "yoso"), "Albert"),
    **dict.fromkeys(("roberta", "roberta-prelayernorm", "data2vec-text", "ibert", "mra", "clap"), "Roberta"),
    **dict.fromkeys(("xlm-roberta", "xlm-roberta-xl", "xmod"), "XLMRoberta"),
    **dict.fromkeys(("gpt2", "gpt_bigcode", "gpt_neo", "gptj", "opt", "starcoder2", "olmo3", "exaone4"), "GPT2"),
    **dict.fromkeys(("gpt_neox", "olmo", "olmo2", "olmoe", "mpt", "stablelm", "mamba", "mamba2", "rwkv"), "GPTNeoX"),
    **dict.fromkeys(
        ("llama", "mistral", "mixtral", "ministral", "phi3", "phimoe", "persimmon", "jetmoe", "jamba", "arcee"), "Llama"
    ),
    **dict.fromkeys(("deepseek_v2", "deepseek_v3", "diffllama", "zamba", "zamba2", "ernie4_5"), "Llama"),
    **dict.fromkeys(("gemma", "gemma2", "gemma3", "gemma3_text", "recurrent_gemma", "t5gemma", "siglip2"), "Gemma"),
    **dict.fromkeys(("qwen2", "qwen2_moe", "qwen3", "qwen3_moe"), "Qwen2"),
    **dict.fromkeys(("cohere", "cohere2"), "Cohere"),
    **dict.fromkeys(("t5", "longt5", "umt5", "switch_transformers"), "T5"),
    **dict.fromkeys(("pegasus", "pegasus_x", "bigbird_pegasus"), "Pegasus"),
    **dict.fromkeys(("nllb", "nllb-moe"), "Nllb"),
    **dict.fromkeys(("codegen", "phi"), "CodeGen"),
    "barthez": "Barthez",
    "bart": "Bart",
    "big_bird": "BigBird",
    "blenderbot": "Blenderbot",
    "bloom": "Bloom",
    "camembert": "Camembert",
    "clip": "CLIP",
    "code_llama": "CodeLlama",
    "convbert": "ConvBert",
    "cpm": "Cpm",
    "deberta": "Deberta",
    "deberta-v2": "DebertaV2",
    "distilbert": "DistilBert",
    "electra": "Electra",
    "fnet": "FNet",
    "funnel": "Funnel",
    "herbert": "Herbert",
    "layoutlm": "LayoutLM",
    "layoutlmv2": "LayoutLMv2",
    "layoutlmv3": "LayoutLMv3",
    "led": "LED",
    "longformer": "Longformer",
    "lxmert": "Lxmert",
    "mbart": "MBart",
    "mbart50": "MBart50",
    "mobilebert": "MobileBert",
    "mpnet": "MPNet",
    "mt5": "MT5",
    "mvp": "Mvp",
    "openai-gpt": "OpenAIGPT",
    "reformer": "Reformer",
    "rembert": "RemBert",
    "retribert": "RetriBert",
    "roformer": "RoFormer",
    "splinter": "Splinter",
    "squeezebert": "SqueezeBert",
    "udop": "Udop",
    "whisper": "Whisper",
    "xglm": "XGLM",
    "xlnet": "XLNet",
}
"""The class of a folder that names none, by config.json's ``model_type``."""
