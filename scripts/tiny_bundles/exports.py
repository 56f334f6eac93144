"""Writing the files of a bundle: traced graphs, weights beside them, tokenizers, JSON; and opening its graphs."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch
import transformers as hf

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")

Axes = dict[str, dict[int, str]]


def trace(
    module: torch.nn.Module, inputs: dict[str, torch.Tensor], outputs: list[str], axes: Axes, path: Path, **options: Any
) -> None:
    """Export a module that takes its inputs by position, with the given names and dynamic axes.

    In eval mode: else the graph and whoever runs the network afterwards would have its dropout.
    """
    names = [*inputs, *outputs]
    torch.onnx.export(
        module.eval(),
        tuple(inputs.values()),
        path,
        input_names=list(inputs),
        output_names=outputs,
        dynamic_axes={name: axes[name] for name in names if name in axes},
        dynamo=False,
        **options,
    )


def place_graph(source: Path, target: Path, external_data: bool) -> None:
    """Store the graph in one file, or with its weights beside it in `<name>_data`."""
    target.parent.mkdir(exist_ok=True)
    options: dict[str, Any] = {}
    if external_data:
        options = {"save_as_external_data": True, "location": target.name + "_data", "size_threshold": 1024}
    onnx.save_model(onnx.load(source), target, **options)
    for path in target.parent.glob(target.name + "*"):
        path.chmod(0o644)  # onnx writes external data for its owner only


def open_graph(path: Path) -> onnxruntime.InferenceSession:
    """Open a graph on the CPU."""
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def save_tokenizer(tokenizer: hf.PreTrainedTokenizerFast, folder: Path, baked_blocks: bool = False) -> None:
    """Store the tokenizer's JSON files without the vocabulary files they were made from.

    `baked_blocks` leaves truncation and padding in tokenizer.json, as some published files have it.
    """
    backend = tokenizer.backend_tokenizer
    if baked_blocks:
        backend.enable_truncation(16, stride=2)
        backend.enable_padding(length=24, pad_id=tokenizer.pad_token_id, pad_token=tokenizer.pad_token)
    with tempfile.TemporaryDirectory() as work:
        tokenizer.save_pretrained(work)
        for name in TOKENIZER_FILES:
            shutil.copy(Path(work, name), folder / name)
    backend.no_truncation()
    backend.no_padding()


def write_json(path: Path, content: object) -> None:
    """Write a JSON file, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
