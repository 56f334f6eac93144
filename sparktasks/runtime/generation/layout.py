"""The graphs of a decoder and its key-value cache, read from their headers: Optimum's layouts of causal and
encoder-decoder models."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sparktasks.errors import BundleError
from sparktasks.runtime.bundle import Bundle
from sparktasks.runtime.generation.decoder_graphs import (
    BRANCH,
    MASK,
    PAST,
    POSITIONS,
    check_axes,
    check_belongs,
    check_decoder,
    check_embeddings,
    check_encoder,
    check_head,
    has_cache,
)
from sparktasks.runtime.generation.tokenizer import check_generation_tokenizer
from sparktasks.runtime.graph import Port
from sparktasks.runtime.model_files import EXPORT

log = logging.getLogger(__name__)

ROWS, COLUMNS = -1, -2
_POSITIONS_FROM_MASK = frozenset({"bloom", "mpt", "opt"})
_COUNTS_MASK = "GroupQueryAttention"
_TYPES = {"float32": np.float32, "float16": np.float16}
_CACHED = (".key", ".value", ".key_value")
_PRESENT = ("present.", "present_key_values.")
_GENERATING_CLASSES = ("ForCausalLM", "LMHeadModel")


@dataclass(frozen=True)
class Slot:
    """One tensor of the key-value cache: its input, the output that continues it, its shape (-1: rows, -2: columns)."""

    past: str
    present: str
    shape: tuple[int, ...]
    dtype: type
    begins_left: bool = False  # each row's tokens stand in the first columns; else in the last

    @property
    def is_cross(self) -> bool:
        """Tell whether it holds the encoder's side, which no step changes."""
        return ".encoder." in self.past

    @property
    def columns(self) -> int:
        """The axis along which the cache grows."""
        return self.shape.index(COLUMNS)

    def empty(self, rows: int) -> np.ndarray:
        """Return the cache of no tokens."""
        shape = list(self.shape)
        shape[self.shape.index(ROWS)] = rows
        shape[self.columns] = 0
        return np.zeros(shape, self.dtype)


@dataclass(frozen=True)
class Layout:
    """The graphs of a decoder: ``prompt_graph`` begins a text, ``step_graph`` continues it (None: there is no cache),
    ``encoder`` reads the source.

    ``embed`` turns ids into vectors, where the decoder takes those (models that also see or hear).
    """

    prompt_graph: Bundle
    step_graph: Bundle | None
    encoder: Bundle | None
    embed: Bundle | None

    @cached_property
    def slots(self) -> tuple[Slot, ...]:
        """The cache, in the order of the graph's inputs."""
        if self.step_graph is None:
            return ()
        slots = []
        for port in self.step_graph.graph.inputs:
            if port.name.startswith(PAST):
                slots.append(_slot(self.step_graph, self.prompt_graph, port, self.begins_left))
        return tuple(slots)

    def shape_of(self, name: str) -> tuple[int | str, ...]:
        """Return the shape of an input of the graph that begins a text; () where it has none of that name."""
        port = self.prompt_graph.graph.input(name)
        return () if port is None else port.shape

    @property
    def source_rows(self) -> int | None:
        """The number of token ids that prompts may have; None where no graph tells."""
        graph = self.encoder or self.embed or self.prompt_graph
        return graph.graph.embedding_rows

    @property
    def target_rows(self) -> int | None:
        """The number of token ids that generated texts may have; None where no graph tells."""
        graph = self.embed or self.prompt_graph
        return graph.graph.embedding_rows

    @cached_property
    def merged(self) -> bool:
        """Tell whether one graph holds both decoders, and a flag chooses."""
        return self._is_one_graph and BRANCH in self.prompt_graph.graph.input_names

    @property
    def _is_one_graph(self) -> bool:
        return self.step_graph is None or self.step_graph.model == self.prompt_graph.model

    @cached_property
    def extends(self) -> bool:
        """Tell whether several tokens can follow a cache: then long prompts are read in pieces, and shared beginnings
        once."""
        if self.step_graph is None or self.encoder is not None:
            return False
        return self._is_one_graph and not self.merged

    @cached_property
    def begins_left(self) -> bool:
        """Tell whether a row's cache begins in the first column: onnxruntime's grouped-query attention counts the
        mask's ones, and takes as many columns."""
        return _COUNTS_MASK in self.prompt_graph.graph.operators

    @cached_property
    def aligns(self) -> bool:
        """Tell whether rows of unequal length can be decoded together: the graph is told where each begins.

        A mask alone does not tell graphs that count positions from the first column (Gemma as Optimum exports it): the
        keys in a cache are turned by them, and would be wrong where a row moves to other columns. Those that derive
        positions from the mask, or know distances only, do without.
        """
        inputs = self.prompt_graph.graph.input_names
        if MASK not in inputs:
            return False
        derives_positions = self.prompt_graph.config.get("model_type") in _POSITIONS_FROM_MASK
        takes_positions = POSITIONS in inputs
        return self.begins_left or takes_positions or derives_positions


def read_layout(bundle: Bundle) -> Layout:
    """Find out how a bundle's graphs generate; `BundleError` where they are no decoder that this engine knows."""
    encoder = bundle.part("encoder_model")
    if bundle.config.get("is_encoder_decoder") and encoder is None:
        raise BundleError(
            f"{bundle.folder}: config.json says that this is an encoder-decoder model, but there is no "
            f"encoder_model.onnx beside {bundle.model}. Export both: {EXPORT}"
        )
    step_graph = bundle if has_cache(bundle) else bundle.part("decoder_with_past_model")
    # Without a cache in either graph, each step reads the whole text again.
    layout = Layout(bundle, step_graph, encoder, bundle.part("embed_tokens"))
    _check_graphs(layout)
    _ = layout.slots  # raises where the cache is none that is known here
    return layout


def _check_graphs(layout: Layout) -> None:
    """Raise `BundleError` where a graph has another role than its name says, or does not belong to the others."""
    prompt_graph, step_graph = layout.prompt_graph, layout.step_graph
    encoder, embed = layout.encoder, layout.embed
    check_decoder(prompt_graph)
    if step_graph is not None:
        check_decoder(step_graph)
    if encoder is not None:
        check_encoder(encoder)
    check_belongs(prompt_graph, encoder, embed)
    if embed is not None:
        check_embeddings(embed)

    # Axes come last: that a graph is of another kind says more than that its shapes are fixed.
    if encoder is not None:
        check_axes(encoder, is_step=False)
    if embed is not None:
        check_axes(embed, is_step=False, ids=embed.graph.input_names)
    check_axes(prompt_graph, is_step=prompt_graph is step_graph)
    if step_graph is not None:
        check_axes(step_graph, is_step=True)


def generates(bundle: Bundle) -> bool:
    """Tell whether a bundle holds a model that generates text: by its graphs, or where they do not tell, by
    config.json."""
    if has_cache(bundle) or len(bundle.graphs) > 1:
        return True
    # A decoder that was exported alone and without a cache looks like an encoder.
    return any(name.endswith(_GENERATING_CLASSES) for name in bundle.architectures)


def check_generator(bundle: Bundle) -> None:
    """Raise `BundleError` where a bundle cannot generate text; looks at files only."""
    layout = read_layout(bundle)
    check_head(bundle, is_plain=layout.step_graph is None and layout.encoder is None)
    if layout.step_graph is None:
        log.warning(
            "%s has no key-value cache: each token reads the whole text again. Export it with a cache: %s",
            bundle.model_path,
            EXPORT,
        )
    check_generation_tokenizer(layout.encoder or layout.embed or bundle)


def _slot(step_graph: Bundle, prompt_graph: Bundle, port: Port, begins_left: bool) -> Slot:
    """Describe the tensor of the cache that an input takes; `BundleError` where it is of a kind unknown here."""
    prefix = next(filter(port.name.startswith, PAST))
    rest = port.name.removeprefix(prefix)
    # Steps do not compute the encoder's side again: only the graph that begins a text does.
    computed_by = prompt_graph if ".encoder." in port.name else step_graph
    outputs = [computed_by.graph.output(f"{present_prefix}{rest}") for present_prefix in _PRESENT]
    present = next(filter(None, outputs), None)
    dtype = _TYPES.get(port.dtype)
    if present is None or dtype is None or not rest.endswith(_CACHED):
        raise BundleError(
            f"{step_graph.folder}: {step_graph.model} keeps {port.name} ({port.dtype}, {list(port.shape)}) in its "
            "cache: only caches of keys and values, in 32 or 16 bit floats, are known here"
        )
    return Slot(port.name, present.name, _axes(step_graph, port), dtype, begins_left)


def _axes(bundle: Bundle, port: Port) -> tuple[int, ...]:
    """Mark the axes that vary: the first is the rows, the other the columns."""
    shape = list(port.shape)
    # Some exporters leave the width of a head open, though it is always the same.
    head_width = bundle.config.get("head_dim")
    if len(shape) == 4 and isinstance(shape[3], str) and head_width is not None:
        shape[3] = int(head_width)

    varying = []
    for axis, size in enumerate(shape):
        if isinstance(size, str):
            varying.append(axis)
    if len(varying) != 2 or varying[0] != 0:
        raise BundleError(
            f"{bundle.folder}: {bundle.model}: {port.name} has the shape {list(port.shape)}; rows and columns "
            "are to vary, and nothing else"
        )
    shape[0], shape[varying[1]] = ROWS, COLUMNS
    return tuple(map(int, shape))
