"""The accuracy level of matrix products by weights in blocks (MatMulNBits), which many files leave open.

At level 4 a CPU multiplies in 8 bits, each block of a row's activations rounded by a scale of its own. Without a level
it turns the weights into float32 in every run, which from a few rows on is slower than float32 weights are, and with
weights of 8 bits many times slower. Answers change by less than what the weights lost when they were rounded.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from sparktasks.errors import ParamError, listed
from sparktasks.runtime.graph import BLOCK_PRODUCT, Graph, block_product
from sparktasks.runtime.protobuf import Field, Message, bytes_field, bytes_key, number_field

LEVEL_VARIABLE = "SPARKTASKS_ACCURACY_LEVEL"
INT8_PRODUCTS = 4
_LEVELS = ("0", "1", "2", "3", "4")
_ATTRIBUTE = "accuracy_level"
_INT = 2  # AttributeProto.AttributeType

Pieces: TypeAlias = "list[bytes | memoryview]"
Rewrite: TypeAlias = Callable[[Message], "Pieces | None"]
"""Returns the pieces of what a message becomes; None where it stays as it is."""


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
    pieces = _LevelWriter(level).model(Message(data, 0, len(data)))
    return data if pieces is None else b"".join(pieces)


class _LevelWriter:
    """Rewrites the messages of an ONNX file that hold products (field numbers: onnx.proto3)."""

    def __init__(self, level: int) -> None:
        kind = number_field(20, _INT)
        self._written = bytes_field(5, bytes_field(1, _ATTRIBUTE.encode()) + number_field(3, level) + kind)

    def model(self, model: Message) -> Pieces | None:
        return _rewritten(model, {7: self._graph, 25: self._function})

    def _graph(self, graph: Message) -> Pieces | None:
        return _rewritten(graph, {1: self._node})

    def _function(self, function: Message) -> Pieces | None:
        return _rewritten(function, {7: self._node})

    def _node(self, node: Message) -> Pieces | None:
        if node.first_text(4) != BLOCK_PRODUCT:
            return _rewritten(node, {5: self._attribute})
        if block_product(node).accuracy_level:
            return None
        kept = [node.data[field.start : field.end] for field in node.fields() if not _is_level(field)]
        return [*kept, self._written]

    def _attribute(self, attribute: Message) -> Pieces | None:
        """Rewrite the branches of an If, or the body of a Loop."""
        return _rewritten(attribute, {6: self._graph, 11: self._graph})


def _is_level(field: Field) -> bool:
    return field.number == 5 and isinstance(field.value, Message) and field.value.first_text(1) == _ATTRIBUTE


def _rewritten(message: Message, rewrites: dict[int, Rewrite]) -> Pieces | None:
    """Return a message with some of its fields rewritten, by number; None where none of them changes."""
    # What lies between the rewritten fields, weights above all, is not copied before all pieces are joined.
    whole = memoryview(message.data)
    pieces: Pieces = []
    copied = message.start
    for field in message.fields():
        rewrite = rewrites.get(field.number)
        content = rewrite(field.value) if rewrite is not None and isinstance(field.value, Message) else None
        if content is not None:
            key = bytes_key(field.number, sum(map(len, content)))
            pieces += [whole[copied : field.start], key, *content]
            copied = field.end
    return [*pieces, whole[copied : message.end]] if pieces else None
