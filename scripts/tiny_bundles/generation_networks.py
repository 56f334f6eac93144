"""The sizes of tiny text generators of the stock Hugging Face architectures, and what makes them say something."""

from __future__ import annotations

from typing import Any

import torch
import transformers as hf

from .generation_oracle import Prompts, end_ids, generate
from .text_encoder_networks import BART as BART_SIZES
from .text_encoder_networks import BASE
from .text_encoder_networks import GPT2 as GPT2_SIZES

POSITIONS = 256
DECODER = {**BASE, "max_position_embeddings": POSITIONS, "tie_word_embeddings": False}
GROUPED = {**DECODER, "num_key_value_heads": 2}
BART = {**BART_SIZES, "max_position_embeddings": POSITIONS}
SCALED = {**BART, "scale_embedding": True}
T5 = {
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 64,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "relative_attention_num_buckets": 16,
    "relative_attention_max_distance": 32,
}

GPT2 = {**GPT2_SIZES, "n_positions": POSITIONS}
OPT = {"ffn_dim": 64, "word_embed_proj_dim": 32, "init_std": 0.3}
MPT = {
    "d_model": 32,
    "n_layers": 2,
    "n_heads": 4,
    "max_seq_len": POSITIONS,
    "expansion_ratio": 2,
    "initializer_range": 0.3,
}

GENERATORS: dict[str, tuple[type, dict[str, Any]]] = {
    "gpt2": (hf.GPT2Config, GPT2),
    "gpt_neox": (hf.GPTNeoXConfig, {**DECODER, "rotary_pct": 0.5}),
    "opt": (hf.OPTConfig, {**DECODER, **OPT}),
    "bloom": (hf.BloomConfig, {"hidden_size": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.3}),
    "mpt": (hf.MptConfig, MPT),
    "llama": (hf.LlamaConfig, GROUPED),
    "mistral": (hf.MistralConfig, {**GROUPED, "sliding_window": None}),
    "qwen2": (hf.Qwen2Config, GROUPED),
    "qwen3": (hf.Qwen3Config, {**GROUPED, "head_dim": 16}),
    "gemma": (hf.GemmaConfig, {**DECODER, "num_key_value_heads": 1, "head_dim": 16}),
    "gemma2": (hf.Gemma2Config, {**GROUPED, "head_dim": 8, "query_pre_attn_scalar": 8}),
    "phi": (hf.PhiConfig, {**DECODER, "partial_rotary_factor": 0.5}),
    "phi3": (hf.Phi3Config, GROUPED),
    "olmo": (hf.OlmoConfig, GROUPED),
    "starcoder2": (hf.Starcoder2Config, GROUPED),
    "gpt_bigcode": (hf.GPTBigCodeConfig, GPT2),
    "t5": (hf.T5Config, T5),
    "mt5": (hf.MT5Config, T5),
    "bart": (hf.BartConfig, BART),
    "mbart": (hf.MBartConfig, SCALED),
    "pegasus": (hf.PegasusConfig, SCALED),
    "marian": (hf.MarianConfig, SCALED),
    "m2m_100": (hf.M2M100Config, SCALED),
}

DISTANT = {"relative_attention_bias": 8.0, "EncDecAttention.q": 8.0, "EncDecAttention.o": 20.0, "lm_head": 0.3}
ATTENTIVE = {"shared": 0.5, "q_proj": 8.0, "encoder_attn.out_proj": 12.0, "fc2": 3.0}

# Factors on weights that a tiny network would not hear, or hear too much of; of several that fit a name the first.
FACTORS: dict[str, dict[str, float]] = {
    "bloom": {"query_key_value": 2.0, "self_attention.dense": 2.0, "word_embeddings.": 0.5},
    "t5": DISTANT,
    "mt5": DISTANT,
    "bart": {"shared": 0.3, "q_proj": 3.0},
    "mbart": {"shared": 0.3, "q_proj": 5.0, "encoder_attn.out_proj": 12.0},
    "pegasus": {**ATTENTIVE, "q_proj": 6.0},
    "marian": {"encoder.layers.": 0.5, "q_proj": 12.0, "v_proj": 0.25},
    "m2m_100": ATTENTIVE,
}
LOUDEST = 100.0

CONFIG_KEYS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")


def make_config(arch: str, sizes: dict[str, Any], settings: dict[str, Any], vocabulary: int) -> hf.PretrainedConfig:
    """Return a network's config; `sizes` go before those of its architecture, `settings` are of its generation."""
    config_class, usual = GENERATORS[arch]
    ids = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    ids |= {key: value for key, value in settings.items() if key in CONFIG_KEYS}
    return config_class(**{**usual, **sizes, **ids, "vocab_size": vocabulary})


def ids_of(value: Any, tokenizer: hf.PreTrainedTokenizerFast) -> Any:
    """Return the id of a token, the ids of a list of them, or another value as it is."""
    if isinstance(value, list):
        return [ids_of(item, tokenizer) for item in value]
    return tokenizer.convert_tokens_to_ids(value) if isinstance(value, str) else value


def tune(network: hf.PreTrainedModel, arch: str, pad: int | None) -> None:
    """Make quiet weights louder, and pads impossible where they end no text."""
    factors = FACTORS.get(arch, {})
    with torch.no_grad():
        for name, weight in network.named_parameters():
            weight.mul_(next((factor for part, factor in factors.items() if part in name), 1.0))
        if pad is not None and pad not in end_ids(network.generation_config.eos_token_id):
            network.get_output_embeddings().weight[pad] = 0.0


def end_sometimes(network: hf.PreTrainedModel, prompts: Prompts, share: float) -> None:
    """Scale the output weights of the tokens that end a text, so that one is the best at this share of the steps.

    The factor is rounded, lest float noise make another network.
    """
    _, logits = generate(network, prompts, forced_eos_token_id=None)
    ends = end_ids(network.generation_config.eos_token_id)
    others = logits.clone()
    others[..., ends] = -torch.inf
    rivals = others.amax(dim=-1)
    with torch.no_grad():
        for end in ends:
            factors = torch.where(logits[..., end] > 0, rivals / logits[..., end], torch.inf)
            factor = float(factors.flatten().quantile(share / len(ends), interpolation="lower"))
            network.get_output_embeddings().weight[end] *= round(factor, 1) if factor < LOUDEST else 1.0
