"""What a decoder's graphs take and give, read from their headers: Optimum's layouts of causal and encoder-decoder
models."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sparktasks.errors import BundleError, listed
from sparktasks.runtime.bundle import Bundle
from sparktasks.runtime.generation.tokenizer import check_generation_tokenizer, largest_ordinary_id
from sparktasks.runtime.graph import Port

log = logging.getLogger(__name__)

IDS = ("input_ids", "decoder_input_ids")
EMBEDS = "inputs_embeds"
HIDDEN = "encoder_hidden_states"
HIDDEN_MASK = "encoder_attention_mask"
BRANCH = "use_cache_branch"
LAST_LOGITS = "num_logits_to_keep"
_PAST = ("past_key_values.", "past.")
_ENCODER_INPUTS = ("input_ids", "attention_mask")
_KNOWN = (*IDS, EMBEDS, "attention_mask", "position_ids", HIDDEN, HIDDEN_MASK, BRANCH, LAST_LOGITS)
_POSITIONS_FROM_MASK = frozenset({"bloom", "mpt", "opt"})
_COUNTS_MASK = "GroupQueryAttention"
_TWO_OPEN_AXES = (*IDS, EMBEDS, "attention_mask", HIDDEN, HIDDEN_MASK)
_ID_TYPES = ("int64", "int32")
_TYPES = {"float32": np.float32, "float16": np.float16}


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
        return self.shape.index(-2)

    def empty(self, rows: int) -> np.ndarray:
        """Return the cache of no tokens."""
        return np.zeros([{-1: rows, -2: 0}.get(size, size) for size in self.shape], self.dtype)


@dataclass(frozen=True)
class Layout:
    """The graphs of a decoder: ``first`` begins a text, ``later`` continues it (None: there is no cache), ``encoder``
    reads the source.

    ``embed`` turns ids into vectors, where the decoder takes those (models that also see or hear).
    """

    first: Bundle
    later: Bundle | None
    encoder: Bundle | None
    embed: Bundle | None

    @cached_property
    def slots(self) -> tuple[Slot, ...]:
        """The cache, in the order of the graph's inputs."""
        if self.later is None:
            return ()
        past = [port for port in self.later.graph.inputs if port.name.startswith(_PAST)]
        return tuple(_slot(self.later, self.first, port, self.begins_left) for port in past)

    def shape_of(self, name: str) -> tuple[int | str, ...]:
        """Return the shape of an input of the graph that begins a text; () where it has none of that name."""
        return next((port.shape for port in self.first.graph.inputs if port.name == name), ())

    @property
    def source_rows(self) -> int | None:
        """The number of token ids that prompts may have; None where no graph tells."""
        return (self.encoder or self.embed or self.first).graph.embedding_rows

    @property
    def target_rows(self) -> int | None:
        """The number of token ids that generated texts may have; None where no graph tells."""
        return (self.embed or self.first).graph.embedding_rows

    @cached_property
    def merged(self) -> bool:
        """Tell whether one graph holds both decoders, and a flag chooses."""
        return self.first.model == (self.later or self.first).model and BRANCH in _names(self.first)

    @cached_property
    def extends(self) -> bool:
        """Tell whether several tokens can follow a cache: then long prompts are read in pieces, and shared beginnings
        once."""
        return (
            self.later is not None and self.first.model == self.later.model and not self.merged and self.encoder is None
        )

    @cached_property
    def begins_left(self) -> bool:
        """Tell whether a row's cache begins in the first column: onnxruntime's grouped-query attention counts the
        mask's ones, and takes as many columns."""
        return _COUNTS_MASK in self.first.graph.operators

    @cached_property
    def aligns(self) -> bool:
        """Tell whether rows of unequal length can be decoded together: the graph is told where each begins.

        A mask alone does not tell graphs that count positions from the first column (Gemma as Optimum exports it): the
        keys in a cache are turned by them, and would be wrong where a row moves to other columns. Those that derive
        positions from the mask, or know distances only, do without.
        """
        names = _names(self.first)
        told = "position_ids" in names or self.first.config.get("model_type") in _POSITIONS_FROM_MASK
        return "attention_mask" in names and (self.begins_left or told)


def _names(bundle: Bundle) -> set[str]:
    return {port.name for port in bundle.graph.inputs}


def read_layout(bundle: Bundle) -> Layout:
    """Find out how a bundle's graphs generate; `BundleError` where they are no decoder that this engine knows."""
    encoder = bundle.part("encoder_model")
    seq2seq = bool(bundle.config.get("is_encoder_decoder"))
    if seq2seq and encoder is None:
        raise BundleError(
            f"{bundle.folder}: config.json says that this is an encoder-decoder model, but there is no "
            f"encoder_model.onnx beside {bundle.model}. "
            "Export both: optimum-cli export onnx --task text2text-generation-with-past --model MODEL FOLDER"
        )
    has_past = any(name.startswith(_PAST) for name in _names(bundle))
    later = bundle if has_past else bundle.part("decoder_with_past_model")
    layout = Layout(bundle, later, encoder, bundle.part("embed_tokens"))
    for graph in filter(None, (layout.first, layout.later)):
        _check_inputs(graph)
        _check_output(graph, "logits", "vocabulary")
    _check_companions(layout)
    _check_axes(layout)
    _ = layout.slots
    return layout


def generates(bundle: Bundle) -> bool:
    """Tell whether a bundle holds a model that generates text: by its graphs, or where they do not tell, by
    config.json."""
    has_past = any(name.startswith(_PAST) for name in _names(bundle))
    causal = any(str(name).endswith(("ForCausalLM", "LMHeadModel")) for name in bundle.config.get("architectures", ()))
    return has_past or len(bundle.graphs) > 1 or causal


def check_generator(bundle: Bundle) -> None:
    """Raise `BundleError` where a bundle cannot generate text; looks at files only."""
    layout = read_layout(bundle)
    _check_head(layout)
    if layout.later is None:
        log.warning(
            "%s has no key-value cache: each token reads the whole text again. Export it with a cache: --task "
            "text-generation-with-past",
            bundle.model_path,
        )
    check_generation_tokenizer(layout.encoder or layout.embed or bundle)


def _check_inputs(bundle: Bundle) -> None:
    unknown = [name for name in sorted(_names(bundle)) if name not in _KNOWN and not name.startswith(_PAST)]
    if unknown:
        raise BundleError(
            f"{bundle.folder}: {bundle.model} takes the inputs {listed(unknown)}; a decoder's are "
            f"{listed(_KNOWN)} and past_key_values.*"
        )
    if any(
        port.name == "position_ids" and len(port.shape) == 3 and isinstance(port.shape[0], str)
        for port in bundle.graph.inputs
    ):
        raise BundleError(
            f"{bundle.folder}: {bundle.model} takes position_ids of three axes, of which the first must have a "
            "fixed size"
        )
    if not _names(bundle) & {*IDS, EMBEDS}:
        raise BundleError(
            f"{bundle.folder}: {bundle.model} takes neither {listed(IDS)} nor {EMBEDS!r}: it is no decoder"
        )


def _check_output(bundle: Bundle, name: str | None, axis: str) -> Port:
    """Return an output of three axes, by name or the first; `BundleError` where there is none."""
    outputs = bundle.graph.outputs
    port = outputs[0] if name is None else next((port for port in outputs if port.name == name), None)
    if port is None or len(port.shape) != 3:
        computed = {port.name: list(port.shape) for port in outputs if not port.name.startswith("present")}
        raise BundleError(
            f"{bundle.folder}: {bundle.model} computes {computed}, so it cannot generate text: "
            f"{name or 'states'} of shape (batch, tokens, {axis}) are expected"
        )
    return port


def _check_companions(layout: Layout) -> None:
    """Raise `BundleError` where the graphs beside the decoder do not read text, or do not belong to it."""
    first, encoder, embed = layout.first, layout.encoder, layout.embed
    if encoder is not None:
        inputs = _names(encoder)
        if "input_ids" not in inputs or not inputs <= {*_ENCODER_INPUTS}:
            raise BundleError(
                f"{encoder.folder}: {encoder.model} takes the inputs {listed(sorted(inputs))}; "
                f"an encoder of text takes {listed(_ENCODER_INPUTS)}. Is it a model for speech or pictures?"
            )
        _check_output(encoder, None, "hidden size")
    if (HIDDEN in _names(first)) != (encoder is not None):
        there = "there is no encoder_model.onnx beside it" if encoder is None else f"{encoder.model} is beside it"
        takes = "takes" if encoder is None else "does not take"
        raise BundleError(f"{first.folder}: {first.model} {takes} {HIDDEN}, but {there}")
    if EMBEDS in _names(first) and embed is None:
        raise BundleError(f"{first.folder}: {first.model} takes {EMBEDS}, but there is no embed_tokens.onnx beside it")
    if embed is not None:
        ports = embed.graph.inputs
        if len(ports) != 1 or ports[0].dtype not in _ID_TYPES:
            taken = {port.name: port.dtype for port in ports}
            raise BundleError(f"{embed.folder}: {embed.model} takes {taken}, but one input of token ids is expected")
        _check_output(embed, None, "hidden size")


def _check_axes(layout: Layout) -> None:
    """Raise `BundleError` where a graph takes only so many texts, or texts of only one length."""
    for graph in filter(None, (layout.encoder, layout.embed, layout.first, layout.later)):
        embeds_ids = graph.graph.inputs if graph is layout.embed else ()
        ports = [port for port in graph.graph.inputs if port.name in _TWO_OPEN_AXES or port in embeds_ids]
        for port in ports:
            is_step = graph is layout.later and port.shape[1:2] == (1,) and port.name in (*IDS, EMBEDS)
            if any(isinstance(size, int) for size in port.shape[: 1 if is_step else 2]):
                raise BundleError(
                    f"{graph.folder}: {graph.model} takes {port.name} of the fixed shape {list(port.shape)}; "
                    "to generate text, batch and length must vary. "
                    "Export it without fixed shapes: optimum-cli export onnx --model MODEL FOLDER"
                )


def _check_head(layout: Layout) -> None:
    """Raise `BundleError` where logits are not those of each next token, but of labels, or of masked tokens."""
    first = layout.first
    masked = [str(name) for name in first.config.get("architectures") or () if str(name).endswith("ForMaskedLM")]
    if masked and layout.later is None and layout.encoder is None:
        raise BundleError(
            f"{first.folder}: config.json says {listed(masked)}: such a model fills gaps and cannot continue texts"
        )
    width, largest = first.logits.shape[-1], largest_ordinary_id(first)
    if isinstance(width, int) and largest is not None and width <= largest:
        raise BundleError(
            f"{first.folder}: {first.model} computes logits of {width} columns, but the tokenizer has ordinary tokens "
            f"up to id {largest}: it is no language model of this vocabulary. Was it exported for another task?"
        )


def _slot(later: Bundle, first: Bundle, port: Port, begins_left: bool) -> Slot:
    prefix = next(prefix for prefix in _PAST if port.name.startswith(prefix))
    rest = port.name.removeprefix(prefix)
    outputs = {output.name for output in (first if ".encoder." in port.name else later).graph.outputs}
    present = next((name for name in (f"present.{rest}", f"present_key_values.{rest}") if name in outputs), None)
    if present is None or port.dtype not in _TYPES or not rest.endswith((".key", ".value", ".key_value")):
        raise BundleError(
            f"{later.folder}: {later.model} keeps {port.name} ({port.dtype}, {list(port.shape)}) in its cache: "
            "only caches of keys and values, in 32 or 16 bit floats, are known here"
        )
    return Slot(port.name, present, _axes(later, port), _TYPES[port.dtype], begins_left)


def _axes(bundle: Bundle, port: Port) -> tuple[int, ...]:
    """Mark the axes that vary: the first is the rows, the other the columns."""
    shape = list(port.shape)
    if len(shape) == 4 and isinstance(shape[3], str) and "head_dim" in bundle.config:
        shape[3] = int(bundle.config["head_dim"])
    varying = [axis for axis, size in enumerate(shape) if isinstance(size, str)]
    if len(varying) != 2 or varying[0] != 0:
        raise BundleError(
            f"{bundle.folder}: {bundle.model}: {port.name} has the shape {list(port.shape)}; rows and columns "
            "are to vary, and nothing else"
        )
    return tuple(-1 if axis == 0 else -2 if axis == varying[1] else int(size) for axis, size in enumerate(shape))
