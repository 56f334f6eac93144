"""ONNX bundle folders of text generators, in every layout that Optimum has written."""

from __future__ import annotations

import contextlib
import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from optimum.exporters.onnx import export_models, onnx_export_from_model
from optimum.exporters.onnx.model_configs import LlamaOnnxConfig
from optimum.exporters.tasks import TasksManager
from optimum.onnx import merge_decoders

from .export import place_graph, save_tokenizer
from .generation_specs import CAUSAL, DECODER, DECODER_MERGED, LOGITS, MERGED, NO_PAST, SPLIT, WITH_PAST, GenerationSpec

OPSET = 18
KEEP = "num_logits_to_keep"


@TasksManager.create_register("onnx")("starcoder2", CAUSAL, f"{CAUSAL}-with-past")
class Starcoder2OnnxConfig(LlamaOnnxConfig):
    """Optimum-onnx 0.1.0 has no config for this architecture; its inputs are those of Llama."""


def write_generator(spec: GenerationSpec, network: hf.PreTrainedModel, tokenizer: hf.PreTrainedTokenizerFast, folder: Path) -> None:
    """Write one bundle folder afresh."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / spec.subfolder).mkdir(parents=True)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        network.config.use_cache = spec.layout != NO_PAST
        network.config.save_pretrained(folder)
        network.generation_config.save_pretrained(folder)
        with quiet():
            export_graphs(spec, network, work)
        for file in spec.files:
            place_graph(work / file, folder / spec.subfolder / file, spec.external_data)
        save_tokenizer(spec, tokenizer, work / "tokenizer", folder)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings about traced shapes; `check_generator` tries other shapes."""
    logging.getLogger("optimum").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def export_graphs(spec: GenerationSpec, network: hf.PreTrainedModel, work: Path) -> None:
    """Export the network's graphs into a folder; some layouts leave more files than they need."""
    if spec.layout == LOGITS:
        export_with_logits_to_keep(network, work / "model.onnx")
    elif spec.task == CAUSAL and spec.layout in (SPLIT, MERGED):
        export_two_decoders(network, work)
    else:
        task = spec.task if spec.layout == NO_PAST else f"{spec.task}-with-past"
        onnx_export_from_model(network, work, task=task, do_validation=False)


def export_config(network: hf.PreTrainedModel, with_past: bool) -> Any:
    """Return Optimum's config of a decoder graph whose outputs have a cache."""
    make = TasksManager.get_exporter_config_constructor(model=network, exporter="onnx", task=f"{CAUSAL}-with-past", library_name="transformers")
    config = make(network.config)
    return type(config)(network.config, task=CAUSAL, use_past=True, use_past_in_inputs=with_past)


def export_two_decoders(network: hf.PreTrainedModel, work: Path) -> None:
    """Export a decoder as Optimum did before version 1.14: without and with a cache, and both merged."""
    parts = {name: (network, export_config(network, with_past)) for name, with_past in ((DECODER, False), (WITH_PAST, True))}
    export_models(parts, work, opset=OPSET, output_names=[*parts], input_shapes={})
    merge_decoders(work / DECODER, work / WITH_PAST, save_path=work / DECODER_MERGED)


class LastLogits(torch.nn.Module):
    """A decoder that computes the logits of the last tokens only; 0 stands for all of them."""

    def __init__(self, network: hf.PreTrainedModel) -> None:
        super().__init__()
        self.network = network

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, places: torch.Tensor, keep: torch.Tensor, *past: torch.Tensor) -> tuple[Any, ...]:
        """Return the logits, and the keys and values of every layer."""
        cache = hf.DynamicCache.from_legacy_cache(tuple(zip(past[::2], past[1::2], strict=True)))
        answer = self.network.model(input_ids=ids, attention_mask=mask, position_ids=places, past_key_values=cache, use_cache=True)
        logits = self.network.lm_head(answer.last_hidden_state[:, -keep:, :])
        return logits, *(tensor for layer in answer.past_key_values.to_legacy_cache() for tensor in layer)


def export_with_logits_to_keep(network: hf.PreTrainedModel, path: Path) -> None:
    """Export a decoder with the names and shapes of the graphs that are published for transformers.js."""
    config = export_config(network, with_past=True)
    given = config.generate_dummy_inputs(framework="pt")
    past = [tensor for layer in given["past_key_values"] for tensor in layer]
    axes = {**config.inputs, **config.outputs, "logits": {0: "batch_size", 1: KEEP}}
    with config.patch_model_for_export(network):
        torch.onnx.export(
            LastLogits(network).eval(),
            (given["input_ids"], given["attention_mask"], given["position_ids"], torch.tensor(1), *past),
            path,
            input_names=["input_ids", "attention_mask", "position_ids", KEEP, *(name for name in config.inputs if name.startswith("past"))],
            output_names=[*config.outputs],
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )
