"""Tiny random networks of the stock Hugging Face architectures."""

from __future__ import annotations

from typing import Any

import torch
import transformers as hf

from .specs import DECODERS, EMBEDDING, NO_PAD, OTHER_PAD, TEXT, TOKEN, UNBOUNDED, Spec

BASE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "initializer_range": 0.3,
}
DISENTANGLED = {"relative_attention": True, "type_vocab_size": 0, "position_biased_input": False}

CONFIGS: dict[str, tuple[type, dict[str, Any]]] = {
    "bert": (hf.BertConfig, BASE),
    "distilbert": (
        hf.DistilBertConfig,
        {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "initializer_range": 0.3},
    ),
    "roberta": (hf.RobertaConfig, {**BASE, "type_vocab_size": 1}),
    "xlm-roberta": (hf.XLMRobertaConfig, {**BASE, "type_vocab_size": 1}),
    "albert": (hf.AlbertConfig, {**BASE, "embedding_size": 16, "num_hidden_groups": 1}),
    "electra": (hf.ElectraConfig, {**BASE, "embedding_size": 16}),
    "mpnet": (hf.MPNetConfig, BASE),
    "deberta-v2": (
        hf.DebertaV2Config,
        {
            **BASE,
            **DISENTANGLED,
            "position_buckets": 16,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "pos_att_type": "p2c|c2p",
        },
    ),
    "deberta": (hf.DebertaConfig, {**BASE, **DISENTANGLED, "pos_att_type": "c2p|p2c"}),
    "camembert": (hf.CamembertConfig, {**BASE, "type_vocab_size": 1}),
    "modernbert": (
        hf.ModernBertConfig,
        {
            **BASE,
            "num_hidden_layers": 3,
            "global_attn_every_n_layers": 2,
            "local_attention": 16,
            "reference_compile": False,
        },
    ),
    "convbert": (hf.ConvBertConfig, {**BASE, "embedding_size": 32, "head_ratio": 2, "conv_kernel_size": 5}),
    "bart": (
        hf.BartConfig,
        {
            "d_model": 32,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 64,
            "decoder_ffn_dim": 64,
            "init_std": 0.3,
        },
    ),
    "gpt2": (hf.GPT2Config, {"n_embd": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.3}),
    "qwen2": (hf.Qwen2Config, {**BASE, "num_key_value_heads": 2}),
    "llama": (hf.LlamaConfig, {**BASE, "num_key_value_heads": 2}),
    "xlnet": (hf.XLNetConfig, {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64, "initializer_range": 0.3}),
}

PADDING_OFFSET = ("roberta", "xlm-roberta", "camembert", "mpnet")  # position ids start at pad_token_id + 1

AUTO_CLASSES: dict[str, Any] = {
    TEXT: hf.AutoModelForSequenceClassification,
    TOKEN: hf.AutoModelForTokenClassification,
    EMBEDDING: hf.AutoModel,
}


def make_network(spec: Spec, tokenizer: hf.PreTrainedTokenizerFast, seed: int) -> hf.PreTrainedModel:
    """Return the randomly initialised network of a bundle, in eval mode."""
    torch.manual_seed(seed)
    config_class, sizes = CONFIGS[spec.arch]
    config = config_class(
        **{**sizes, **positions(spec), **vocabulary(tokenizer), **labels(spec), **pad_token(spec, tokenizer)}
    )
    return AUTO_CLASSES[spec.task].from_config(config).eval()


def positions(spec: Spec) -> dict[str, int]:
    """Return the number of positions that the tokenizer's limit needs; XLNet has none."""
    if spec.max_length == UNBOUNDED or spec.arch == "xlnet":
        return {}
    if spec.arch == "gpt2":
        return {"n_positions": spec.max_length}
    return {"max_position_embeddings": spec.max_length + (2 if spec.arch in PADDING_OFFSET else 0)}


def vocabulary(tokenizer: hf.PreTrainedTokenizerFast) -> dict[str, int]:
    """Return the config keys that follow the tokenizer."""
    ids = {
        name: getattr(tokenizer, name)
        for name in ("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")
    }
    return {"vocab_size": len(tokenizer)} | {name: token_id for name, token_id in ids.items() if token_id is not None}


def pad_token(spec: Spec, tokenizer: hf.PreTrainedTokenizerFast) -> dict[str, int | None]:
    """Return the pad token that a decoder counts by; others have the tokenizer's."""
    if spec.arch not in DECODERS:
        return {}
    if spec.pads == OTHER_PAD:
        return {"pad_token_id": len(tokenizer) - 1}
    return {"pad_token_id": None if spec.pads == NO_PAD else tokenizer.pad_token_id}


def labels(spec: Spec) -> dict[str, Any]:
    """Return the config keys that follow the task."""
    if not spec.labels:
        return {}
    names = dict(enumerate(spec.labels))
    keys: dict[str, Any] = {"id2label": names, "label2id": {name: i for i, name in names.items()}}
    return keys | ({"problem_type": spec.problem_type} if spec.problem_type else {})
