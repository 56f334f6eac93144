"""The sizes of tiny encoders and classifiers of the stock Hugging Face architectures, and their other config keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers as hf

Pooling = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # hidden states and mask to vectors

BASE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "initializer_range": 0.3,
}
DISTILBERT = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "initializer_range": 0.3}
DISENTANGLED = {"relative_attention": True, "type_vocab_size": 0, "position_biased_input": False}
DEBERTA_V2 = {
    "position_buckets": 16,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": "p2c|c2p",
}
MODERNBERT = {
    "num_hidden_layers": 3,
    "global_attn_every_n_layers": 2,
    "local_attention": 16,
    "reference_compile": False,
}
CONVBERT = {"embedding_size": 32, "head_ratio": 2, "conv_kernel_size": 5}
BART = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "init_std": 0.3,
}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.3}
XLNET = {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64, "initializer_range": 0.3}

CONFIGS: dict[str, tuple[type, dict[str, Any]]] = {
    "bert": (hf.BertConfig, BASE),
    "distilbert": (hf.DistilBertConfig, DISTILBERT),
    "roberta": (hf.RobertaConfig, {**BASE, "type_vocab_size": 1}),
    "xlm-roberta": (hf.XLMRobertaConfig, {**BASE, "type_vocab_size": 1}),
    "albert": (hf.AlbertConfig, {**BASE, "embedding_size": 16, "num_hidden_groups": 1}),
    "electra": (hf.ElectraConfig, {**BASE, "embedding_size": 16}),
    "mpnet": (hf.MPNetConfig, BASE),
    "deberta-v2": (hf.DebertaV2Config, {**BASE, **DISENTANGLED, **DEBERTA_V2}),
    "deberta": (hf.DebertaConfig, {**BASE, **DISENTANGLED, "pos_att_type": "c2p|p2c"}),
    "camembert": (hf.CamembertConfig, {**BASE, "type_vocab_size": 1}),
    "modernbert": (hf.ModernBertConfig, {**BASE, **MODERNBERT}),
    "convbert": (hf.ConvBertConfig, {**BASE, **CONVBERT}),
    "bart": (hf.BartConfig, BART),
    "gpt2": (hf.GPT2Config, GPT2),
    "qwen2": (hf.Qwen2Config, {**BASE, "num_key_value_heads": 2}),
    "llama": (hf.LlamaConfig, {**BASE, "num_key_value_heads": 2}),
    "xlnet": (hf.XLNetConfig, XLNET),
}

PADDING_OFFSET = ("roberta", "xlm-roberta", "camembert", "mpnet")  # position ids start at pad_token_id + 1
TOKEN_IDS = ("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")


def positions(arch: str, max_length: int) -> dict[str, int]:
    """Return the number of positions that the tokenizer's limit needs; XLNet has none."""
    if arch == "xlnet":
        return {}
    if arch == "gpt2":
        return {"n_positions": max_length}
    return {"max_position_embeddings": max_length + (2 if arch in PADDING_OFFSET else 0)}


def vocabulary(tokenizer: hf.PreTrainedTokenizerFast) -> dict[str, int]:
    """Return the config keys that follow the tokenizer."""
    ids = {name: getattr(tokenizer, name) for name in TOKEN_IDS}
    return {"vocab_size": len(tokenizer)} | {name: index for name, index in ids.items() if index is not None}


def label_keys(labels: tuple[str, ...], problem_type: str | None) -> dict[str, Any]:
    """Return the config keys of a classifier."""
    if not labels:
        return {}
    keys: dict[str, Any] = {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}
    return {**keys, "problem_type": problem_type} if problem_type else keys


def has_token_types(arch: str, tokenizer: hf.PreTrainedTokenizerFast) -> bool:
    """Tell whether the second text of a pair has another token type than the first."""
    _, sizes = CONFIGS[arch]
    return sizes.get("type_vocab_size", 2) > 1 and "token_type_ids" in tokenizer.model_input_names


class NamedInputs(torch.nn.Module):
    """A network called with its inputs by position, as the tracer wants; `pooling` makes a vector of hidden states."""

    def __init__(self, network: hf.PreTrainedModel, inputs: list[str], pooling: Pooling | None = None) -> None:
        super().__init__()
        self.network, self.inputs, self.pooling = network, inputs, pooling

    def forward(self, *values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return logits, hidden states, or hidden states and the vector."""
        feeds = dict(zip(self.inputs, values, strict=True))
        first = self.network(**feeds)[0]
        if self.pooling is None:
            return (first,)
        return first, self.pooling(first, feeds["attention_mask"])
