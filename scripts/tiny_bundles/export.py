"""ONNX bundle folders as Optimum, transformers.js and sentence-transformers lay them out."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import onnx
import torch
import transformers as hf
from optimum.exporters.onnx import onnx_export_from_model

from .pooling import pool
from .specs import EMBEDDING, NO_PAD, TEXT, Spec

OWN_EXPORT = ("xlnet",)  # optimum-onnx 0.1.0 has no config for these
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
POOLING_FLAGS = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "max": "pooling_mode_max_tokens",
    "mean_sqrt_len": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}


def write_bundle(spec: Spec, network: hf.PreTrainedModel, tokenizer: hf.PreTrainedTokenizerFast, folder: Path) -> Path:
    """Write one bundle folder afresh and return the path of its graph."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as work:
        export_graph(spec, network, tokenizer.model_input_names, Path(work))
        network.config.save_pretrained(folder)
        save_tokenizer(spec, tokenizer, Path(work, "tokenizer"), folder)
        model = folder / spec.subfolder / "model.onnx"
        model.parent.mkdir(exist_ok=True)
        place_graph(Path(work, "model.onnx"), model, spec.external_data)
    if spec.task == EMBEDDING and spec.sentence_files:
        write_sentence_files(spec, network.config.hidden_size, folder)
    return model


def export_graph(spec: Spec, network: hf.PreTrainedModel, inputs: list[str], folder: Path) -> None:
    """Export the network to `folder/model.onnx`."""
    logging.getLogger("optimum").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracer warnings about shapes; `check_export` tries other shapes
        if spec.arch in OWN_EXPORT or spec.pooled_graph:
            export_by_tracing(NamedInputs(spec, network, inputs), folder / "model.onnx")
        else:
            task = "feature-extraction" if spec.task == EMBEDDING else spec.task
            sizes = {"batch_size": 1} if spec.pads == NO_PAD else {}  # such a decoder refuses to run two texts
            onnx_export_from_model(network, folder, task=task, do_validation=False, **sizes)


class NamedInputs(torch.nn.Module):
    """A network called with its inputs by position, as the tracer wants; its outputs are those of the exported
    graph."""

    def __init__(self, spec: Spec, network: hf.PreTrainedModel, inputs: list[str]) -> None:
        super().__init__()
        self.spec, self.network, self.inputs = spec, network, inputs

    @property
    def outputs(self) -> list[str]:
        """Return the names that Optimum gives the outputs."""
        if self.spec.pooled_graph:
            return ["token_embeddings", "sentence_embedding"]
        return ["last_hidden_state" if self.spec.task == EMBEDDING else "logits"]

    def forward(self, *values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return logits, hidden states, or hidden states and the sentence's vector."""
        named = dict(zip(self.inputs, values, strict=True))
        first = self.network(**named)[0]
        if not self.spec.pooled_graph:
            return (first,)
        vector = pool(first, named["attention_mask"], self.spec.pooling)
        return first, torch.nn.functional.normalize(vector) if self.spec.normalize else vector


def export_by_tracing(wrapper: NamedInputs, path: Path) -> None:
    """Export a network with Optimum's input and output names."""
    ids = torch.arange(20, 42).reshape(2, 11)
    values = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
    axes = {name: {0: "batch_size", 1: "sequence_length"} for name in (*wrapper.inputs, *wrapper.outputs)}
    axes |= {
        name: {0: "batch_size"} for name in wrapper.outputs if name == "sentence_embedding" or wrapper.spec.task == TEXT
    }
    torch.onnx.export(
        wrapper.eval(),
        tuple(values[name] for name in wrapper.inputs),
        path,
        input_names=wrapper.inputs,
        output_names=wrapper.outputs,
        dynamic_axes=axes,
        opset_version=17,
        dynamo=False,
    )


def place_graph(source: Path, target: Path, external_data: bool) -> None:
    """Store the graph in one file, or with its weights beside it in `model.onnx_data`."""
    options: dict[str, Any] = {}
    if external_data:
        options = {"save_as_external_data": True, "location": target.name + "_data", "size_threshold": 1024}
    onnx.save_model(onnx.load(source), target, **options)
    for path in target.parent.glob(target.name + "*"):
        path.chmod(0o644)  # onnx writes external data for its owner only


def save_tokenizer(spec: Spec, tokenizer: hf.PreTrainedTokenizerFast, work: Path, folder: Path) -> None:
    """Store the tokenizer's JSON files without the vocabulary files they were made from."""
    if spec.baked_blocks:
        tokenizer.backend_tokenizer.enable_truncation(16, stride=2)
        tokenizer.backend_tokenizer.enable_padding(
            length=24, pad_id=tokenizer.pad_token_id, pad_token=tokenizer.pad_token
        )
    tokenizer.save_pretrained(work)
    for name in TOKENIZER_FILES:
        shutil.copy(work / name, folder / name)
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()


def write_sentence_files(spec: Spec, size: int, folder: Path) -> None:
    """Write the files by which sentence-transformers describes pooling and prompts."""
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), *([("2_Normalize", "Normalize")] if spec.normalize else [])]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds)
    ]
    flags = {flag: mode == spec.pooling for mode, flag in POOLING_FLAGS.items()}
    write_json(folder / "modules.json", modules)
    write_json(
        folder / "1_Pooling" / "config.json", {"word_embedding_dimension": size, **flags, "include_prompt": True}
    )
    write_json(
        folder / "sentence_bert_config.json",
        {"max_seq_length": spec.max_seq_length or spec.max_length, "do_lower_case": spec.lower_case},
    )
    versions = {"sentence_transformers": "5.1.0", "transformers": hf.__version__, "pytorch": "2.8.0"}
    prompts = {"prompts": spec.prompts, "default_prompt_name": None, "similarity_fn_name": "cosine"}
    write_json(folder / "config_sentence_transformers.json", {"__version__": versions, **prompts})


def write_json(path: Path, content: object) -> None:
    """Write a JSON file, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
