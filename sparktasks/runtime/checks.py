"""What must hold for a bundle before a stage takes it: the roles of its graph's inputs and outputs, its tokenizer.

All looks at files only, so that a model that does not fit is refused on the driver, before a job starts.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from sparktasks.errors import BundleError, listed
from sparktasks.runtime.bundle import Bundle
from sparktasks.runtime.folder_files import interpreting, section
from sparktasks.runtime.graph import fixed_size
from sparktasks.runtime.model_files import EXPORT

TEXT_INPUTS = ("input_ids", "attention_mask", "token_type_ids", "position_ids")

# What exporters call outputs that are not the scores of labels.
_HIDDEN_STATES = ("last_hidden_state", "token_embeddings", "hidden_states", "encoder_last_hidden_state")
_VECTORS = ("pooler_output", "sentence_embedding", "text_embeds", "image_embeds")
_ANSWERS = ("start_logits", "end_logits")
_OTHER_ROLES = {
    **dict.fromkeys((*_HIDDEN_STATES, *_VECTORS), "an encoder without a head (feature-extraction)"),
    **dict.fromkeys(_ANSWERS, "a model for question-answering"),
}


def check_text_encoder(bundle: Bundle) -> None:
    """Raise `BundleError` where a graph takes other inputs than text gives, or the tokenizer does not fit it."""
    unknown = bundle.graph.input_names.difference(TEXT_INPUTS)
    if unknown:
        raise BundleError(
            f"{bundle.folder}: {bundle.model} wants the inputs {listed(sorted(unknown))}; "
            f"from text come {listed(TEXT_INPUTS)}"
        )
    _check_axes(bundle)
    check_tokenizer(bundle)


def _check_axes(bundle: Bundle) -> None:
    """Raise `BundleError` where inputs are not ``(texts, tokens)``, or a fixed length cannot be filled up."""
    who = f"{bundle.folder}: {bundle.model}"
    shapes = {port.name: port.shape for port in bundle.graph.inputs}
    if "input_ids" not in shapes:
        raise BundleError(f"{who} takes {listed(shapes)}, and no input_ids")
    of_other_axes = {}
    for name, shape in shapes.items():
        if len(shape) != 2:
            of_other_axes[name] = list(shape)
    if of_other_axes:
        raise BundleError(f"{who} takes {of_other_axes}; inputs of two axes are expected: texts and tokens")

    fixed_sizes = {(fixed_size(shape, 0), fixed_size(shape, 1)) for shape in shapes.values()}
    if len(fixed_sizes) > 1:
        raise BundleError(f"{who} has inputs of unlike fixed sizes: {shapes}")
    # Tokens that only fill up a text are told from the others by the mask.
    if bundle.fixed_length is not None and "attention_mask" not in shapes:
        raise BundleError(
            f"{who} takes exactly {bundle.fixed_length} tokens and no attention_mask, so that shorter texts cannot be "
            f"filled up. Export it with axes that vary: {EXPORT}"
        )


def check_tokenizer(bundle: Bundle) -> None:
    """Raise `BundleError` where tokenizer.json is missing, or has ordinary tokens that the embedding has no rows for.

    Special tokens beyond the embedding's rows (``<mask>`` of BART's summarizers) are warned of: a text that contains
    one is an error of its row.
    """
    content = bundle.read_json("tokenizer.json")
    if content is None:
        raise BundleError(
            f"{bundle.folder} has no tokenizer.json. Write one with transformers: "
            "AutoTokenizer.from_pretrained(MODEL).save_pretrained(FOLDER)"
        )
    rows = bundle.graph.embedding_rows
    if rows is None:
        return
    # An id beyond the table ends the run of its whole batch, in the middle of a job.
    beyond = {}
    with interpreting(bundle.tokenizer_path):
        for token, index in _token_ids(content).items():
            if index >= rows:
                beyond[token] = index
        special = _special_tokens(content)
    ordinary = beyond.keys() - special
    if ordinary:
        largest = max(map(beyond.__getitem__, ordinary))
        raise BundleError(
            f"{bundle.tokenizer_path} makes token ids up to {largest}, but the embedding in {bundle.model} "
            f"has {rows} rows: they do not belong together. Take both files from one model"
        )
    if beyond:
        warnings.warn(
            f"{bundle.folder}: the embedding in {bundle.model} has {rows} rows, and none for the special tokens "
            f"{listed(beyond)}: a text that contains one is an error of its row",
            stacklevel=2,
        )


def without_embedding(token: str | None, index: int, rows: int) -> str:
    """Describe a token that an embedding of so many rows has none for."""
    return (
        f"the token {token!r} ({index}), and the model's embedding has {rows} rows: it was not trained with that token"
    )


def vocabulary_ids(content: Mapping[str, Any]) -> dict[str, int]:
    """Return the ids of a tokenizer.json's vocabulary, without the tokens that were added to it."""
    vocabulary = section(content, "model").get("vocab") or {}
    if isinstance(vocabulary, Mapping):
        return {str(token): int(index) for token, index in vocabulary.items()}
    # Unigram has pieces with their scores, in the order of their ids.
    return {str(piece[0]): index for index, piece in enumerate(vocabulary)}


def _token_ids(content: Mapping[str, Any]) -> dict[str, int]:
    """Return the id of every token of a tokenizer.json."""
    ids = vocabulary_ids(content)
    for token in content.get("added_tokens") or ():
        ids[str(token["content"])] = int(token["id"])
    return ids


def _special_tokens(content: Mapping[str, Any]) -> set[str]:
    """Return the added tokens of a tokenizer.json that are marked as special."""
    special = set()
    for token in content.get("added_tokens") or ():
        if token.get("special"):
            special.add(str(token["content"]))
    return special


def check_logits(bundle: Bundle, *axes: str) -> None:
    """Raise `BundleError` where a graph computes no logits of these axes, or not one column for each label."""
    who = f"{bundle.folder}: {bundle.model} computes"
    port = bundle.logits
    expected = f"({', '.join(axes)})"
    role = _OTHER_ROLES.get(port.name.partition(".")[0])
    if role is not None:
        names = listed(output.name for output in bundle.graph.outputs)
        raise BundleError(f"{who} {names}: it is {role}, but logits of shape {expected} are expected")
    if len(port.shape) != len(axes):
        raise BundleError(
            f"{who} {port.name} of shape {list(port.shape)}, but {expected} is wanted. "
            "Was it exported for another task?"
        )
    if bundle.logits_width is not None:
        _check_width(bundle, bundle.logits_width)
    _ = bundle.labels  # raises where id2label does not number them


def _check_width(bundle: Bundle, width: int) -> None:
    """Raise `BundleError` where logits of so many columns are not those of the labels."""
    config = bundle.config
    # transformers writes no labels where they are LABEL_0 and LABEL_1, so that a vocabulary may be all there is.
    names_labels = "id2label" in config or "num_labels" in config
    if not names_labels and width == config.get("vocab_size"):
        raise BundleError(
            f"{bundle.folder}: {bundle.model} computes one score for each of the {width} tokens of the vocabulary: "
            "it is a language model, not a classifier"
        )
    if width != len(bundle.labels):
        raise BundleError(
            f"{bundle.folder}: config.json names {len(bundle.labels)} labels, but the graph {bundle.model} "
            f"computes {width} ({bundle.logits.name}: {list(bundle.logits.shape)}). Correct id2label, or export the "
            "model again"
        )
