"""Tiny random text generators of the stock Hugging Face architectures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers as hf

from .generation_oracle import end_ids
from .generation_specs import CAUSAL, SEQ2SEQ, GenerationSpec
from .networks import BASE

POSITIONS = 256
DECODER = {**BASE, "max_position_embeddings": POSITIONS, "tie_word_embeddings": False}
GROUPED = {**DECODER, "num_key_value_heads": 2}
BART = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "init_std": 0.3,
    "max_position_embeddings": POSITIONS,
}
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

GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": POSITIONS, "initializer_range": 0.3}
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

CONFIG_KEYS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
AUTO_CLASSES: dict[str, Any] = {CAUSAL: hf.AutoModelForCausalLM, SEQ2SEQ: hf.AutoModelForSeq2SeqLM}
DISTANT = {"relative_attention_bias": 8.0, "EncDecAttention.q": 8.0, "EncDecAttention.o": 20.0, "lm_head": 0.3}
ATTENTIVE = {"shared": 0.5, "q_proj": 8.0, "encoder_attn.out_proj": 12.0, "fc2": 3.0}
FACTORS: dict[
    str, dict[str, float]
] = {  # on weights that a tiny network would not hear, or hear too much of; the first that fits
    "bloom": {"query_key_value": 2.0, "self_attention.dense": 2.0, "word_embeddings.": 0.5},
    "t5": DISTANT,
    "mt5": DISTANT,
    "bart": {"shared": 0.3, "q_proj": 3.0},
    "mbart": {"shared": 0.3, "q_proj": 5.0, "encoder_attn.out_proj": 12.0},
    "pegasus": {**ATTENTIVE, "q_proj": 6.0},
    "marian": {"encoder.layers.": 0.5, "q_proj": 12.0, "v_proj": 0.25},
    "m2m_100": ATTENTIVE,
}


def make_generator(spec: GenerationSpec, tokenizer: hf.PreTrainedTokenizerFast, seed: int) -> hf.PreTrainedModel:
    """Return the randomly initialised network of a bundle, in eval mode, with its generation config."""
    torch.manual_seed(seed)
    settings = generation_settings(spec, tokenizer)
    config_class, sizes = GENERATORS[spec.arch]
    ids = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None} | {
        key: settings[key] for key in settings if key in CONFIG_KEYS
    }
    config = config_class(**{**sizes, **spec.sizes, **ids, "vocab_size": len(tokenizer)})
    network = AUTO_CLASSES[spec.task].from_config(config).eval()
    network.generation_config = hf.GenerationConfig(**settings)
    return tuned(network, spec, tokenizer.pad_token_id)


def load_generator(spec: GenerationSpec, twin: Path) -> hf.PreTrainedModel:
    """Return the network of a torch checkpoint, in eval mode; an export leaves its network changed."""
    return AUTO_CLASSES[spec.task].from_pretrained(twin).eval()


def generation_settings(spec: GenerationSpec, tokenizer: hf.PreTrainedTokenizerFast) -> dict[str, Any]:
    """Return the content of generation_config.json, tokens replaced by their ids."""
    return {key: ids_of(value, tokenizer) for key, value in spec.generation.items()}


def ids_of(value: Any, tokenizer: hf.PreTrainedTokenizerFast) -> Any:
    """Return the id of a token, the ids of a list of them, or another value as it is."""
    if isinstance(value, list):
        return [ids_of(item, tokenizer) for item in value]
    return tokenizer.convert_tokens_to_ids(value) if isinstance(value, str) else value


def tuned(network: hf.PreTrainedModel, spec: GenerationSpec, pad: int | None) -> hf.PreTrainedModel:
    """Make quiet weights louder, and pads impossible where they end no text."""
    with torch.no_grad():
        for name, weight in network.named_parameters():
            weight.mul_(next((factor for part, factor in FACTORS.get(spec.arch, {}).items() if part in name), 1.0))
        if pad is not None and pad not in end_ids(network.generation_config.eos_token_id):
            network.get_output_embeddings().weight[pad] = 0.0
    return network
