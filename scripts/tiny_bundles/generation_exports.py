"""The graphs of text generators, in every layout that Optimum and others have written."""

from __future__ import annotations

from collections.abc import Callable
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

from .exports import Axes, trace
from .generation_grouped import export_grouped

CAUSAL = "text-generation"
SEQ2SEQ = "text2text-generation"

# What the graphs of a bundle are: the files of each layout are in FILES.
PAST = "past"  # one graph with a cache, as Optimum exports decoders today
NO_PAST = "no-past"
SPLIT = "split"  # a graph for the first step and one for the others
MERGED = "merged"  # both in one file, chosen by the input use_cache_branch
EVERY = "every"  # split and merged files side by side, as Optimum leaves them
LOGITS = "logits"  # like PAST, with the input num_logits_to_keep
# a decoder with a cache that takes vectors, and a graph that turns ids into them: as models that also see are published
EMBEDS = "embeds"
# attention is one node, and genai_config.json stands for config.json: as onnxruntime-genai's builder writes
GROUPED = "grouped"

DECODER, WITH_PAST, DECODER_MERGED = "decoder_model.onnx", "decoder_with_past_model.onnx", "decoder_model_merged.onnx"
ENCODER, EMBED_TOKENS = "encoder_model.onnx", "embed_tokens.onnx"
FILES: dict[tuple[str, str], tuple[str, ...]] = {
    (CAUSAL, PAST): ("model.onnx",),
    (CAUSAL, LOGITS): ("model.onnx",),
    (CAUSAL, GROUPED): ("model.onnx",),
    (CAUSAL, EMBEDS): (DECODER_MERGED, EMBED_TOKENS),
    (CAUSAL, NO_PAST): ("model.onnx",),
    (CAUSAL, SPLIT): (DECODER, WITH_PAST),
    (CAUSAL, MERGED): (DECODER_MERGED,),
    (SEQ2SEQ, NO_PAST): (ENCODER, DECODER),
    (SEQ2SEQ, SPLIT): (ENCODER, DECODER, WITH_PAST),
    (SEQ2SEQ, MERGED): (ENCODER, DECODER_MERGED),
    (SEQ2SEQ, EVERY): (ENCODER, DECODER, WITH_PAST, DECODER_MERGED),
}

OPSET = 18
KEEP = "num_logits_to_keep"
VECTORS = "inputs_embeds"


@TasksManager.create_register("onnx")("starcoder2", CAUSAL, f"{CAUSAL}-with-past")
class Starcoder2OnnxConfig(LlamaOnnxConfig):
    """Optimum-onnx 0.1.0 has no config for this architecture; its inputs are those of Llama."""


def export_graphs(task: str, layout: str, network: hf.PreTrainedModel, work: Path) -> None:
    """Export the network's graphs into a folder; some layouts leave more files than they need."""
    own: dict[tuple[str, str], Callable[[hf.PreTrainedModel, Path], None]] = {
        (CAUSAL, LOGITS): export_with_logits_to_keep,
        (CAUSAL, EMBEDS): export_with_vectors,
        (CAUSAL, GROUPED): export_grouped,
        (CAUSAL, SPLIT): export_two_decoders,
        (CAUSAL, MERGED): export_two_decoders,
    }
    if (task, layout) in own:
        own[task, layout](network, work)
    else:
        with_past = "" if layout == NO_PAST else "-with-past"
        onnx_export_from_model(network, work, task=f"{task}{with_past}", do_validation=False)


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
        DECODER: (network, export_config(network, with_past=False)),
        WITH_PAST: (network, export_config(network, with_past=True)),
    }
    export_models(parts, work, opset=OPSET, output_names=list(parts), input_shapes={})
    merge_decoders(work / DECODER, work / WITH_PAST, save_path=work / DECODER_MERGED)


class Cached(torch.nn.Module):
    """A decoder that takes and returns its cache as one tensor after the other."""

    def __init__(self, network: hf.PreTrainedModel) -> None:
        super().__init__()
        self.network = network

    def states(self, past: tuple[torch.Tensor, ...], **feeds: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return the last hidden states, and the keys and values of every layer."""
        cache = hf.DynamicCache.from_legacy_cache(tuple(zip(past[::2], past[1::2], strict=True)))
        answer = self.network.model(**feeds, past_key_values=cache, use_cache=True)
        present = [tensor for layer in answer.past_key_values.to_legacy_cache() for tensor in layer]
        return answer.last_hidden_state, present


class LastLogits(Cached):
    """A decoder that computes the logits of the last tokens only; 0 stands for all of them."""

    def forward(
        self, ids: torch.Tensor, mask: torch.Tensor, places: torch.Tensor, keep: torch.Tensor, *past: torch.Tensor
    ) -> tuple[Any, ...]:
        """Return the logits and the cache."""
        hidden, cache = self.states(past, input_ids=ids, attention_mask=mask, position_ids=places)
        return self.network.lm_head(hidden[:, -keep:, :]), *cache


class FromVectors(Cached):
    """A decoder that takes vectors instead of ids."""

    def forward(
        self, vectors: torch.Tensor, mask: torch.Tensor, places: torch.Tensor, *past: torch.Tensor
    ) -> tuple[Any, ...]:
        """Return the logits and the cache."""
        hidden, cache = self.states(past, inputs_embeds=vectors, attention_mask=mask, position_ids=places)
        return self.network.lm_head(hidden), *cache


def export_with_logits_to_keep(network: hf.PreTrainedModel, work: Path) -> None:
    """Export a decoder with the names and shapes of the graphs that are published for transformers.js."""
    config = export_config(network, with_past=True)
    dummy = config.generate_dummy_inputs(framework="pt")
    feeds = {name: dummy[name] for name in ("input_ids", "attention_mask", "position_ids")}
    axes = {**config.inputs, **config.outputs, "logits": {0: "batch_size", 1: KEEP}}
    trace_decoder(LastLogits(network), config, {**feeds, KEEP: torch.tensor(1)}, axes, work / "model.onnx")


def export_with_vectors(network: hf.PreTrainedModel, work: Path) -> None:
    """Export the two graphs that text needs of a model that also sees or hears: vectors of ids, and a decoder of
    vectors."""
    config = export_config(network, with_past=True)
    dummy = config.generate_dummy_inputs(framework="pt")
    embed = network.get_input_embeddings()
    by_token = {0: "batch_size", 1: "sequence_length"}
    feeds = {VECTORS: embed(dummy["input_ids"]).detach()}
    feeds |= {name: dummy[name] for name in ("attention_mask", "position_ids")}
    axes = {**config.inputs, **config.outputs, VECTORS: by_token}
    trace_decoder(FromVectors(network), config, feeds, axes, work / DECODER_MERGED)
    axes = {"input_ids": by_token, VECTORS: by_token}
    trace(embed, {"input_ids": dummy["input_ids"]}, [VECTORS], axes, work / EMBED_TOKENS, opset_version=OPSET)


def trace_decoder(decoder: Cached, config: Any, feeds: dict[str, torch.Tensor], axes: Axes, path: Path) -> None:
    """Export a decoder whose inputs are `feeds` and the cache that Optimum's config describes."""
    names = [name for name in config.inputs if name.startswith("past")]
    layers = config.generate_dummy_inputs(framework="pt")["past_key_values"]
    past = dict(zip(names, (tensor for layer in layers for tensor in layer), strict=True))
    with config.patch_model_for_export(decoder.network):
        trace(decoder, {**feeds, **past}, list(config.outputs), axes, path, opset_version=OPSET)


def halve(work: Path, merged: bool) -> None:
    """Make the weights, inputs and outputs of all graphs of a folder float16; of merged ones before they are merged."""
    for path in work.glob("*.onnx"):
        if path.name != DECODER_MERGED:
            onnx.save_model(convert_float_to_float16(onnx.load(path)), path)
    if merged:
        merge_decoders(work / DECODER, work / WITH_PAST, save_path=work / DECODER_MERGED, strict=False)
