"""Decoders for the benchmarks: GPT-2's shape in two sizes and Llama's in one, with random weights, as an ONNX bundle
and its torch twin."""

from __future__ import annotations

import json
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SHAPES = {
    "gpt2-6x512": {"n_layer": 6, "n_embd": 512, "n_head": 8},
    "gpt2-12x768": {"n_layer": 12, "n_embd": 768, "n_head": 12},
}
LLAMA = {
    "llama-6x512": {"num_hidden_layers": 6, "hidden_size": 512, "num_attention_heads": 8, "intermediate_size": 1344}
}
VOCABULARY = 50257
POSITIONS = 1024
SEED = 1


@dataclass(frozen=True)
class DecoderModel:
    """Folders of one network: its ONNX bundle, and the checkpoint for transformers."""

    bundle: Path
    torch: Path


def decoder(name: str, folder: Path) -> DecoderModel:
    """Return the model of a name in ``SHAPES`` or ``LLAMA``, building it below a folder at first use."""
    found = DecoderModel(folder / name / "onnx", folder / name / "torch")
    if not (found.torch / "config.json").is_file():
        _build(found, name)
    return found


def _network(name: str) -> Any:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(SEED)
    common = {"vocab_size": VOCABULARY, "initializer_range": 0.08, "bos_token_id": 50256, "eos_token_id": 50256}
    if name in LLAMA:
        return LlamaForCausalLM(
            LlamaConfig(**LLAMA[name], **common, max_position_embeddings=POSITIONS, tie_word_embeddings=False)
        ).eval()
    return GPT2LMHeadModel(GPT2Config(**SHAPES[name], **common, n_positions=POSITIONS)).eval()


def _build(target: DecoderModel, name: str) -> None:
    from optimum.exporters.onnx import onnx_export_from_model

    network = _network(name)
    network.generation_config.eos_token_id = None  # lengths are set by the benchmark
    shutil.rmtree(target.bundle, ignore_errors=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracer warnings about shapes
        onnx_export_from_model(network, target.bundle, task="text-generation-with-past", do_validation=False)
    words = {f"w{index}": index for index in range(VOCABULARY)}
    tokenizer = {
        "version": "1.0",
        "added_tokens": [],
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "w0"},
    }
    tokenizer |= dict.fromkeys(("normalizer", "post_processor", "decoder", "truncation", "padding")) | {
        "pre_tokenizer": {"type": "Whitespace"}
    }
    network.save_pretrained(target.torch)
    for folder in (target.bundle, target.torch):
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
        (folder / "tokenizer_config.json").write_text(
            json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}), encoding="utf-8"
        )
