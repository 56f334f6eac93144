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

import onnx
import torch
import transformers as hf
from onnxruntime.transformers.float16 import convert_float_to_float16
from optimum.exporters.onnx import export_models, onnx_export_from_model
from optimum.exporters.onnx.model_configs import LlamaOnnxConfig
from optimum.exporters.tasks import TasksManager
from optimum.onnx import merge_decoders

from .export import place_graph, save_tokenizer
from .generation_grouped import export_grouped, write_genai_config
from .generation_specs import (
    CAUSAL,
    DECODER,
    DECODER_MERGED,
    EMBED_TOKENS,
    EMBEDS,
    GROUPED,
    HALF,
    LOGITS,
    MERGED,
    NO_PAST,
    SPLIT,
    WITH_PAST,
    GenerationSpec,
)

OPSET = 18
KEEP = "num_logits_to_keep"
VECTORS = "inputs_embeds"


@TasksManager.create_register("onnx")("starcoder2", CAUSAL, f"{CAUSAL}-with-past")
class Starcoder2OnnxConfig(LlamaOnnxConfig):
    """Optimum-onnx 0.1.0 has no config for this architecture; its inputs are those of Llama."""


def write_generator(
    spec: GenerationSpec, network: hf.PreTrainedModel, tokenizer: hf.PreTrainedTokenizerFast, folder: Path
) -> None:
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
        if spec.precision == HALF:
            halve(work, spec.layout == MERGED)
        for plain, file in zip(spec.exported, spec.files, strict=True):
            place_graph(work / plain, folder / spec.subfolder / file, spec.external_data)
        save_tokenizer(spec, tokenizer, work / "tokenizer", folder)
        if spec.layout == GROUPED:
            write_genai_config(network, folder)


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
    elif spec.layout == EMBEDS:
        export_with_vectors(network, work)
    elif spec.layout == GROUPED:
        export_grouped(network, work / "model.onnx", OPSET)
    elif spec.task == CAUSAL and spec.layout in (SPLIT, MERGED):
        export_two_decoders(network, work)
    else:
        task = spec.task if spec.layout == NO_PAST else f"{spec.task}-with-past"
        onnx_export_from_model(network, work, task=task, do_validation=False)


def export_config(network: hf.PreTrainedModel, with_past: bool) -> Any:
    """Return Optimum's config of a decoder graph whose outputs have a cache."""
    make = TasksManager.get_exporter_config_constructor(
        model=network, exporter="onnx", task=f"{CAUSAL}-with-past", library_name="transformers"
    )
    config = make(network.config)
    return type(config)(network.config, task=CAUSAL, use_past=True, use_past_in_inputs=with_past)


def export_two_decoders(network: hf.PreTrainedModel, work: Path) -> None:
    """Export a decoder as Optimum did before version 1.14: without and with a cache, and both merged."""
    parts = {
        name: (network, export_config(network, with_past)) for name, with_past in ((DECODER, False), (WITH_PAST, True))
    }
    export_models(parts, work, opset=OPSET, output_names=[*parts], input_shapes={})
    merge_decoders(work / DECODER, work / WITH_PAST, save_path=work / DECODER_MERGED)


class Cached(torch.nn.Module):
    """A decoder that takes and returns its cache as one tensor after the other."""

    def __init__(self, network: hf.PreTrainedModel) -> None:
        super().__init__()
        self.network = network

    def states(self, past: tuple[torch.Tensor, ...], **given: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return the last hidden states, and the keys and values of every layer."""
        cache = hf.DynamicCache.from_legacy_cache(tuple(zip(past[::2], past[1::2], strict=True)))
        answer = self.network.model(**given, past_key_values=cache, use_cache=True)
        return answer.last_hidden_state, [
            tensor for layer in answer.past_key_values.to_legacy_cache() for tensor in layer
        ]


class LastLogits(Cached):
    """A decoder that computes the logits of the last tokens only; 0 stands for all of them."""

    def forward(
        self, ids: torch.Tensor, mask: torch.Tensor, places: torch.Tensor, keep: torch.Tensor, *past: torch.Tensor
    ) -> tuple[Any, ...]:
        """Return the logits and the cache."""
        hidden, cache = self.states(past, input_ids=ids, attention_mask=mask, position_ids=places)
        return self.network.lm_head(hidden[:, -keep:, :]), *cache


class FromVectors(Cached):
    """A decoder that is given vectors instead of ids."""

    def forward(
        self, vectors: torch.Tensor, mask: torch.Tensor, places: torch.Tensor, *past: torch.Tensor
    ) -> tuple[Any, ...]:
        """Return the logits and the cache."""
        hidden, cache = self.states(past, inputs_embeds=vectors, attention_mask=mask, position_ids=places)
        return self.network.lm_head(hidden), *cache


def export_with_logits_to_keep(network: hf.PreTrainedModel, path: Path) -> None:
    """Export a decoder with the names and shapes of the graphs that are published for transformers.js."""
    config = export_config(network, with_past=True)
    given = config.generate_dummy_inputs(framework="pt")
    read = {name: given[name] for name in ("input_ids", "attention_mask", "position_ids")}
    axes = {**config.inputs, **config.outputs, "logits": {0: "batch_size", 1: KEEP}}
    trace(LastLogits(network), config, {**read, KEEP: torch.tensor(1)}, axes, path)


def export_with_vectors(network: hf.PreTrainedModel, work: Path) -> None:
    """Export the two graphs that text needs of a model that also sees or hears: vectors of ids, and a decoder of
    vectors."""
    config = export_config(network, with_past=True)
    given = config.generate_dummy_inputs(framework="pt")
    embed = network.get_input_embeddings()
    tokens = {0: "batch_size", 1: "sequence_length"}
    read = {
        VECTORS: embed(given["input_ids"]).detach(),
        "attention_mask": given["attention_mask"],
        "position_ids": given["position_ids"],
    }
    trace(
        FromVectors(network), config, read, {**config.inputs, **config.outputs, VECTORS: tokens}, work / DECODER_MERGED
    )
    axes = {"input_ids": tokens, VECTORS: tokens}
    options = {"input_names": ["input_ids"], "output_names": [VECTORS], "dynamic_axes": axes, "opset_version": OPSET}
    torch.onnx.export(embed, (given["input_ids"],), work / EMBED_TOKENS, **options, dynamo=False)


def trace(
    decoder: Cached, config: Any, read: dict[str, torch.Tensor], axes: dict[str, dict[int, str]], path: Path
) -> None:
    """Export a decoder whose inputs are `read` and the cache that Optimum's config describes."""
    past = [tensor for layer in config.generate_dummy_inputs(framework="pt")["past_key_values"] for tensor in layer]
    names = [*read, *(name for name in config.inputs if name.startswith("past"))]
    with config.patch_model_for_export(decoder.network):
        torch.onnx.export(
            decoder.eval(),
            (*read.values(), *past),
            path,
            input_names=names,
            output_names=[*config.outputs],
            dynamic_axes={name: axes[name] for name in [*names, *config.outputs] if name in axes},
            opset_version=OPSET,
            dynamo=False,
        )


def halve(work: Path, merged: bool) -> None:
    """Make the weights, inputs and outputs of all graphs of a folder float16; of merged ones before they are merged."""
    for path in work.glob("*.onnx"):
        if path.name != DECODER_MERGED:
            onnx.save_model(convert_float_to_float16(onnx.load(path)), path)
    if merged:
        merge_decoders(work / DECODER, work / WITH_PAST, save_path=work / DECODER_MERGED, strict=False)
