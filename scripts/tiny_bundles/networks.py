"""Tiny random networks of the stock Hugging Face architectures."""

from __future__ import annotations

from typing import Any

import torch
import transformers as hf

from .specs import EMBEDDING, TEXT, TOKEN, UNBOUNDED, Spec

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
        {**BASE, "num_hidden_layers": 3, "global_attn_every_n_layers": 2, "local_attention": 16, "reference_compile": False},
    ),
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
    config = config_class(**sizes, **positions(spec), **vocabulary(tokenizer), **labels(spec))
    return AUTO_CLASSES[spec.task].from_config(config).eval()


def positions(spec: Spec) -> dict[str, int]:
    """Return the number of positions that the tokenizer's limit needs; XLNet has none."""
    if spec.max_length == UNBOUNDED or spec.arch == "xlnet":
        return {}
    return {"max_position_embeddings": spec.max_length + (2 if spec.arch in PADDING_OFFSET else 0)}


def vocabulary(tokenizer: hf.PreTrainedTokenizerFast) -> dict[str, int]:
    """Return the config keys that follow the tokenizer."""
    ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")}
    return {"vocab_size": len(tokenizer)} | {name: token_id for name, token_id in ids.items() if token_id is not None}


def labels(spec: Spec) -> dict[str, Any]:
    """Return the config keys that follow the task."""
    if not spec.labels:
        return {}
    names = dict(enumerate(spec.labels))
    keys: dict[str, Any] = {"id2label": names, "label2id": {name: i for i, name in names.items()}}
    return keys | ({"problem_type": spec.problem_type} if spec.problem_type else {})
