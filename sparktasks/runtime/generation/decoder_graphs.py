"""What the graphs of a decoder take and compute, by the names that Optimum gives, and what is refused about them."""

from __future__ import annotations

from collections.abc import Collection

from sparktasks.errors import BundleError, listed
from sparktasks.runtime.bundle import Bundle
from sparktasks.runtime.generation.tokenizer import largest_ordinary_id
from sparktasks.runtime.graph import Port, fixed_size
from sparktasks.runtime.model_files import EXPORT

IDS = ("input_ids", "decoder_input_ids")
EMBEDS = "inputs_embeds"
MASK = "attention_mask"
POSITIONS = "position_ids"
HIDDEN = "encoder_hidden_states"
HIDDEN_MASK = "encoder_attention_mask"
BRANCH = "use_cache_branch"
LAST_LOGITS = "num_logits_to_keep"
PAST = ("past_key_values.", "past.")

_TEXT_INPUTS = (*IDS, EMBEDS)
_DECODER_INPUTS = (*_TEXT_INPUTS, MASK, POSITIONS, HIDDEN, HIDDEN_MASK, BRANCH, LAST_LOGITS)
_ENCODER_INPUTS = ("input_ids", MASK)
_TWO_OPEN_AXES = (*_TEXT_INPUTS, MASK, HIDDEN, HIDDEN_MASK)
_ID_TYPES = ("int64", "int32")


def has_cache(bundle: Bundle) -> bool:
    """Tell whether a graph takes a key-value cache."""
    names = bundle.graph.input_names
    return any(name.startswith(PAST) for name in names)


def check_decoder(bundle: Bundle) -> None:
    """Raise `BundleError` where a graph has inputs that text does not give, or computes no logits of tokens."""
    inputs = bundle.graph.input_names
    unknown = []
    for name in sorted(inputs.difference(_DECODER_INPUTS)):
        if not name.startswith(PAST):
            unknown.append(name)
    if unknown:
        raise BundleError(
            f"{bundle.folder}: {bundle.model} takes the inputs {listed(unknown)}; a decoder's are "
            f"{listed(_DECODER_INPUTS)} and past_key_values.*"
        )

    # Models that see count time, height and width, each on its own. Of text the three are alike.
    positions = bundle.graph.input(POSITIONS)
    if positions is not None and len(positions.shape) == 3:
        kinds = fixed_size(positions.shape, 0)
        if kinds is None:
            raise BundleError(
                f"{bundle.folder}: {bundle.model} takes position_ids of three axes, of which the first must have a "
                "fixed size"
            )

    # An encoder for pictures or sound has neither.
    if inputs.isdisjoint(_TEXT_INPUTS):
        raise BundleError(
            f"{bundle.folder}: {bundle.model} takes neither {listed(IDS)} nor {EMBEDS!r}: it is no decoder"
        )
    _check_output(bundle, bundle.graph.output("logits"), "logits", "vocabulary")


def check_encoder(encoder: Bundle) -> None:
    """Raise `BundleError` where a graph does not encode text."""
    inputs = encoder.graph.input_names
    is_known = inputs.issubset(_ENCODER_INPUTS)
    if "input_ids" not in inputs or not is_known:
        raise BundleError(
            f"{encoder.folder}: {encoder.model} takes the inputs {listed(sorted(inputs))}; "
            f"an encoder of text takes {listed(_ENCODER_INPUTS)}. Is it a model for speech or pictures?"
        )
    _check_output(encoder, encoder.graph.outputs[0], "states", "hidden size")


def check_embeddings(embed: Bundle) -> None:
    """Raise `BundleError` where a graph does not turn token ids into vectors."""
    types = {port.name: port.dtype for port in embed.graph.inputs}
    if len(types) != 1 or not set(types.values()).issubset(_ID_TYPES):
        raise BundleError(f"{embed.folder}: {embed.model} takes {types}, but one input of token ids is expected")
    _check_output(embed, embed.graph.outputs[0], "states", "hidden size")


def _check_output(bundle: Bundle, port: Port | None, what: str, axis: str) -> None:
    """Raise `BundleError` where an output is missing, or has not three axes."""
    if port is not None and len(port.shape) == 3:
        return
    computed = {}
    for output in bundle.graph.outputs:
        # The cache would fill the message.
        if not output.name.startswith("present"):
            computed[output.name] = list(output.shape)
    raise BundleError(
        f"{bundle.folder}: {bundle.model} computes {computed}, so it cannot generate text: "
        f"{what} of shape (batch, tokens, {axis}) are expected"
    )


def check_belongs(decoder: Bundle, encoder: Bundle | None, embed: Bundle | None) -> None:
    """Raise `BundleError` where a decoder needs a graph that is not beside it, or does not read one that is."""
    who = f"{decoder.folder}: {decoder.model}"
    inputs = decoder.graph.input_names
    if encoder is None:
        if HIDDEN in inputs:
            raise BundleError(f"{who} takes {HIDDEN}, but there is no encoder_model.onnx beside it")
    elif HIDDEN not in inputs:
        raise BundleError(f"{who} does not take {HIDDEN}, but {encoder.model} is beside it")
    if EMBEDS in inputs and embed is None:
        raise BundleError(f"{who} takes {EMBEDS}, but there is no embed_tokens.onnx beside it")


def check_axes(bundle: Bundle, is_step: bool, ids: Collection[str] = ()) -> None:
    """Raise `BundleError` where a graph takes only so many texts, or texts of only one length.

    A graph for a step of one token has a fixed length. ``ids`` names more inputs of texts and tokens.
    """
    checked = {*_TWO_OPEN_AXES, *ids}
    for port in bundle.graph.inputs:
        if port.name not in checked:
            continue
        batch = fixed_size(port.shape, 0)
        length = fixed_size(port.shape, 1)
        # Some exporters fix the length of a graph for steps at one token, which is what it is run on.
        may_have_one_token = is_step and port.name in _TEXT_INPUTS
        if may_have_one_token and length == 1:
            length = None
        if (batch, length) != (None, None):
            raise BundleError(
                f"{bundle.folder}: {bundle.model} takes {port.name} of the fixed shape {list(port.shape)}; "
                "to generate text, batch and length must vary. "
                f"Export it without fixed shapes: {EXPORT}"
            )


def _check_fills_no_gaps(bundle: Bundle) -> None:
    """Raise `BundleError` where config.json names a model of masked tokens."""
    masked = []
    for name in bundle.architectures:
        if name.endswith("ForMaskedLM"):
            masked.append(name)
    if masked:
        raise BundleError(
            f"{bundle.folder}: config.json says {listed(masked)}: such a model fills gaps and cannot continue texts"
        )


def check_head(bundle: Bundle, is_plain: bool) -> None:
    """Raise `BundleError` where logits are not those of each next token, but of labels, or of masked tokens.

    ``is_plain`` says that the graph has neither a cache nor an encoder, so that nothing but config.json tells.
    """
    if is_plain:
        _check_fills_no_gaps(bundle)
    # Logits may be wider than the vocabulary, which trainers round up, and never narrower.
    width = bundle.logits_width
    if width is None:
        return
    largest = largest_ordinary_id(bundle)
    if largest is not None and width <= largest:
        raise BundleError(
            f"{bundle.folder}: {bundle.model} computes logits of {width} columns, but the tokenizer has ordinary "
            f"tokens up to id {largest}: it is no language model of this vocabulary. Was it exported for another task?"
        )
