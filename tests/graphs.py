"""Bundles of a few ONNX nodes, for what published architectures do with padding, lengths and odd tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers

WORDS = ("[PAD]", "[UNK]", "[EOS]", *(f"w{number}" for number in range(37)))
LABELS = 4
PAD, END = WORDS.index("[PAD]"), WORDS.index("[EOS]")

Nodes = Sequence[onnx.NodeProto]


def node(kind: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    """Return a node; names of inputs are parted by spaces."""
    return helper.make_node(kind, inputs.split(), [output], **attributes)


# Each computes logits (texts, 4) from `vectors` (texts, tokens, 4), input_ids and attention_mask, as some architectures
# do.

MEAN_OF_MASKED: Nodes = (  # an encoder that heeds its mask
    node("Cast", "attention_mask", "mask", to=TensorProto.FLOAT),
    node("Unsqueeze", "mask last_axis", "wide_mask"),
    node("Mul", "vectors wide_mask", "kept"),
    node("ReduceSum", "kept tokens_axis", "logits", keepdims=0),
)
SUM_OF_ALL: Nodes = (
    node("ReduceSum", "vectors tokens_axis", "logits", keepdims=0),
)  # convolutions, dynamic quantisation
LAST_COLUMN: Nodes = (node("Gather", "vectors minus_one", "logits", axis=1),)  # a decoder exported without a pad token
LAST_TOKEN: Nodes = (  # a decoder that counts the tokens that are not its pad token
    node("Equal", "input_ids pad", "is_pad"),
    node("Not", "is_pad", "is_token"),
    node("Cast", "is_token", "token", to=TensorProto.INT64),
    node("ReduceSum", "token tokens_axis", "count", keepdims=1),
    node("Sub", "count one", "place"),
    node("Unsqueeze", "place last_axis", "place_3"),
    node("Expand", "place_3 row_shape", "places"),
    node("GatherElements", "vectors places", "picked", axis=1),
    node("Squeeze", "picked tokens_axis", "logits"),
)
AT_THE_END_TOKEN: Nodes = (  # BART: the states at end tokens, taken for a table with equally many in each row
    node("Equal", "input_ids end", "is_end"),
    node("NonZero", "is_end", "places_t"),
    node("Transpose", "places_t", "places_of_ends", perm=[1, 0]),
    node("GatherND", "vectors places_of_ends", "states"),
    node("Shape", "input_ids", "shape"),
    node("Gather", "shape zero", "texts"),
    node("Concat", "texts table_rest", "table_shape", axis=0),
    node("Reshape", "states table_shape", "by_text"),
    node("Gather", "by_text minus_one", "logits", axis=1),
)
NO_NUMBER_FOR_W5: Nodes = (  # the logarithm of what is below zero for one token only
    *MEAN_OF_MASKED[:-1],
    node("ReduceSum", "kept tokens_axis", "sums", keepdims=0),
    node("Equal", "input_ids five", "is_five"),
    node("Cast", "is_five", "five_f", to=TensorProto.FLOAT),
    node("ReduceMax", "five_f", "has_five", axes=[1], keepdims=1),
    node("Sub", "half has_five", "sign"),
    node("Log", "sign", "log"),
    node("Sub", "log log_half", "nothing"),
    node("Add", "sums nothing", "logits"),
)
FAILS_ON_W5: Nodes = (  # a second table that has fewer rows, which no header shows
    *MEAN_OF_MASKED[:-1],
    node("ReduceSum", "kept tokens_axis", "sums", keepdims=0),
    node("Equal", "input_ids five", "is_five"),
    node("Cast", "is_five", "row_of_small", to=TensorProto.INT64),
    node("Gather", "small_table row_of_small", "small", axis=0),
    node("ReduceMax", "small", "small_most", axes=[1], keepdims=1),
    node("Add", "sums small_most", "logits"),
)


def write_bundle(
    folder: Path,
    nodes: Nodes,
    shape: tuple[int | str, int | str] = ("texts", "tokens"),
    config: Mapping[str, Any] | None = None,
    tokenizer_config: Mapping[str, Any] | None = None,
    rows: int = len(WORDS),
) -> Path:
    """Write a bundle whose texts are words w0, w1, ...; its classes are LABEL_0 to LABEL_3."""
    folder.mkdir(parents=True, exist_ok=True)
    table = np.random.Generator(np.random.PCG64(1)).normal(size=(rows, LABELS)).astype(np.float32)
    constants = {
        "table": table,
        "small_table": np.zeros(1, np.float32),
        "half": np.array(0.5, np.float32),
        "log_half": np.log(np.array(0.5, np.float32)),
        **{name: np.array([value]) for name, value in (("tokens_axis", 1), ("last_axis", -1), ("zero", 0))},
        **{name: np.array(value) for name, value in (("minus_one", -1), ("one", 1), ("pad", PAD), ("end", END))},
        "five": np.array(WORDS.index("w5")),
        "table_rest": np.array([-1, LABELS]),
        "row_shape": np.array([1, 1, LABELS]),
    }
    used = {name for each in nodes for name in each.input} | {"table"}
    graph = helper.make_graph(
        [node("Gather", "table input_ids", "vectors", axis=0), *nodes],
        "graph",
        [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in ("input_ids", "attention_mask")],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, (shape[0], LABELS))],
        [numpy_helper.from_array(array, name) for name, array in constants.items() if name in used],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "model.onnx")
    names = {str(index): f"LABEL_{index}" for index in range(LABELS)}
    _write(folder / "config.json", {"model_type": "bert", "id2label": names, **(config or {})})
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 64, **(tokenizer_config or {})}
    _write(folder / "tokenizer_config.json", settings)
    write_tokenizer(folder)
    return folder


def write_tokenizer(folder: Path, extra: Sequence[str] = ()) -> None:
    """Write a tokenizer.json that splits at spaces; ``extra`` words follow the others."""
    words = [*WORDS, *extra]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")
