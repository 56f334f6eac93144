"""The accuracy level of matrix products by weights in blocks (MatMulNBits), which many files leave open.

At level 4 a CPU multiplies in 8 bits, each block of a row's activations rounded by a scale of its own. Without a level
it turns the weights into float32 in every run, which from a few rows on is slower than float32 weights are, and with
weights of 8 bits many times slower. Answers change by less than what the weights lost when they were rounded.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeAlias

from sparktasks.errors import ParamError, listed
from sparktasks.runtime.graph import BLOCK_PRODUCT, Graph, block_product
from sparktasks.runtime.protobuf import Message, bytes_field, bytes_key, number_field

LEVEL_VARIABLE = "SPARKTASKS_ACCURACY_LEVEL"
INT8_PRODUCTS = 4
_LEVELS = ("0", "1", "2", "3", "4")
_LEVEL = "accuracy_level"
_INT = 2  # AttributeProto.AttributeType

# The messages of an ONNX file that hold nodes, somewhere inside: which fields of each are which (onnx.proto3).
_MODEL, _GRAPH, _FUNCTION, _NODE, _ATTRIBUTE = "model", "graph", "function", "node", "attribute"
_FIELDS: dict[str, dict[int, str]] = {
    _MODEL: {7: _GRAPH, 25: _FUNCTION},
    _GRAPH: {1: _NODE},
    _FUNCTION: {7: _NODE},
    _NODE: {5: _ATTRIBUTE},
    _ATTRIBUTE: {6: _GRAPH, 11: _GRAPH},
}

Pieces: TypeAlias = "list[bytes | memoryview]"
"""The pieces that a message is made of, one behind the other."""


def missing_level() -> int:
    """Return the level that products get whose file leaves it open: 4, or what the machine's variable says; 0 leaves
    them as they are.

    Raises `ParamError` where the variable holds something else.
    """
    asked = os.environ.get(LEVEL_VARIABLE, str(INT8_PRODUCTS))
    if asked not in _LEVELS:
        raise ParamError(f"the variable {LEVEL_VARIABLE}={asked!r} is not allowed: it takes {listed(_LEVELS)}")
    return int(asked)


def level_for(graph: Graph) -> int:
    """Return the level to set in a graph for the CPU; 0 where there is nothing to set."""
    is_open = any(product.accuracy_level == 0 for product in graph.block_products)
    return missing_level() if is_open else 0


def with_level(path: Path, level: int) -> bytes:
    """Return an ONNX file's content with a level for each product that has none; its outside data stay where they
    are."""
    data = path.read_bytes()
    pieces = _rewritten(Message(data, 0, len(data)), _MODEL, level)
    return data if pieces is None else b"".join(pieces)


def _rewritten(message: Message, kind: str, level: int) -> Pieces | None:
    """Return a message with a level for each product in it that has none; None where there is no such product."""
    if kind == _NODE and message.first_text(4) == BLOCK_PRODUCT:
        return _leveled(message, level)
    # What lies between the rewritten fields, weights above all, is not copied before all pieces are joined.
    whole = memoryview(message.data)
    pieces: Pieces = []
    copied = message.start
    for field in message.fields():
        inner = _FIELDS[kind].get(field.number)
        if inner is None or not isinstance(field.value, Message):
            continue
        content = _rewritten(field.value, inner, level)
        if content is not None:
            key = bytes_key(field.number, sum(map(len, content)))
            pieces += [whole[copied : field.start], key, *content]
            copied = field.end
    if not pieces:
        return None
    return [*pieces, whole[copied : message.end]]


def _leveled(node: Message, level: int) -> Pieces | None:
    """Return a product with the level; None where its file states one."""
    if block_product(node).accuracy_level:
        return None
    pieces: Pieces = []
    for field in node.fields():
        value = field.value
        if isinstance(value, Message) and field.number == 5 and value.first_text(1) == _LEVEL:
            continue  # an attribute of the name may stand there once only
        pieces.append(node.data[field.start : field.end])
    attribute = bytes_field(1, _LEVEL.encode()) + number_field(3, level) + number_field(20, _INT)
    return [*pieces, bytes_field(5, attribute)]
