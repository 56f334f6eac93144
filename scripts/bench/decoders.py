"""Decoders for the benchmarks: GPT-2's shape in two sizes, with random weights, as an ONNX bundle and its torch twin."""

from __future__ import annotations

import json
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SHAPES = {"gpt2-6x512": {"n_layer": 6, "n_embd": 512, "n_head": 8}, "gpt2-12x768": {"n_layer": 12, "n_embd": 768, "n_head": 12}}
VOCABULARY = 50257
POSITIONS = 1024
SEED = 1


@dataclass(frozen=True)
class DecoderModel:
    """Folders of one network: its ONNX bundle, and the checkpoint for transformers."""

    bundle: Path
    torch: Path


def decoder(name: str, folder: Path) -> DecoderModel:
    """Return the model of a name in ``SHAPES``, building it below a folder at first use."""
    found = DecoderModel(folder / name / "onnx", folder / name / "torch")
    if not (found.torch / "config.json").is_file():
        _build(found, SHAPES[name])
    return found


def _build(target: DecoderModel, shape: dict[str, int]) -> None:
    import torch
    from optimum.exporters.onnx import onnx_export_from_model
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(SEED)
    config = GPT2Config(**shape, vocab_size=VOCABULARY, n_positions=POSITIONS, initializer_range=0.08, bos_token_id=50256, eos_token_id=50256)
    network: Any = GPT2LMHeadModel(config).eval()
    network.generation_config.eos_token_id = None  # lengths are set by the benchmark
    shutil.rmtree(target.bundle, ignore_errors=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracer warnings about shapes
        onnx_export_from_model(network, target.bundle, task="text-generation-with-past", do_validation=False)
    words = {f"w{index}": index for index in range(VOCABULARY)}
    tokenizer = {"version": "1.0", "added_tokens": [], "model": {"type": "WordLevel", "vocab": words, "unk_token": "w0"}}
    tokenizer |= dict.fromkeys(("normalizer", "post_processor", "decoder", "truncation", "padding")) | {"pre_tokenizer": {"type": "Whitespace"}}
    (target.bundle / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    network.save_pretrained(target.torch)
