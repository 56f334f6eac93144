"""The constant matrices of an ONNX graph: which products multiply by them, and which lookups take rows of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

# Products of fewer outputs, such as a head of a few labels, stay float32: there is nothing to gain from them.
_NARROWEST = 32

# Tables of fewer rows, such as those of token types, stay float32 too.
_SHORTEST_TABLE = 256


@dataclass(frozen=True)
class Matrix:
    """A constant matrix of a graph: a product's weight ``(inputs, outputs)``, stored as that or ``turned``.

    ``scope`` is the number of the graph that has it: two branches may each have a weight of one name.
    """

    tensor: Any
    scope: int
    turned: bool = False

    @property
    def key(self) -> tuple[int, str, bool]:
        """What tells it from other matrices."""
        return self.scope, self.tensor.name, self.turned

    @property
    def inputs(self) -> int:
        """The number of weights of each output."""
        rows, columns = self.tensor.dims
        return int(columns if self.turned else rows)

    @property
    def outputs(self) -> int:
        """The number of outputs."""
        rows, columns = self.tensor.dims
        return int(rows if self.turned else columns)

    @property
    def name(self) -> str:
        """The name that the graph has for it."""
        return str(self.tensor.name)

    def rows(self) -> np.ndarray:
        """Return the weights of each output, ``(outputs, inputs)``."""
        stored = self.stored()
        return stored if self.turned else stored.T

    def stored(self) -> np.ndarray:
        """Return the matrix as the file has it."""
        from onnx import numpy_helper

        return np.asarray(numpy_helper.to_array(self.tensor))


class Scope:
    """The constants that the nodes of a graph can name: its own, and those of the graphs around it."""

    def __init__(self, graph: Any, outer: Scope | None, number: int) -> None:
        from onnx import TensorProto

        self._shapes: dict[str, list[int]] = {}
        self._matrices: dict[str, Matrix] = {}
        if outer is not None:
            self._shapes.update(outer._shapes)
            self._matrices.update(outer._matrices)
        for tensor in graph.initializer:
            self._shapes[tensor.name] = list(tensor.dims)
            # A branch may use the name of a matrix around it for something else.
            self._matrices.pop(tensor.name, None)
            if (tensor.data_type, len(tensor.dims)) == (TensorProto.FLOAT, 2):
                self._matrices[tensor.name] = Matrix(tensor, number)
        # A head that shares its weights with the embedding reads them through a Transpose.
        for node in graph.node:
            if node.op_type != "Transpose":
                continue
            source, target = node.input[0], node.output[0]
            if source in self._matrices:
                self._matrices[target] = replace(self._matrices[source], turned=True)

    def weight(self, node: Any) -> Matrix | None:
        """Return the weight of a matrix product; None where it is no product, or a small one, or not by a constant."""
        if node.op_type not in ("MatMul", "Gemm"):
            return None
        matrix = self._matrices.get(node.input[1])
        if matrix is not None and node.op_type == "Gemm":
            matrix = self._gemm_weight(node, matrix)
        if matrix is None:
            return None
        narrower = min(matrix.inputs, matrix.outputs)
        if narrower < _NARROWEST:
            return None
        return matrix

    def _gemm_weight(self, node: Any, matrix: Matrix) -> Matrix | None:
        """Return a Gemm's matrix as it multiplies by it; None where the Gemm does more than a product."""
        if attribute(node, "transB", 0):
            matrix = replace(matrix, turned=not matrix.turned)
        return matrix if self._is_plain_gemm(node, matrix) else None

    def _is_plain_gemm(self, node: Any, matrix: Matrix) -> bool:
        """Tell whether a Gemm does no more than multiply by its weight and add a constant vector."""
        options = (
            attribute(node, "alpha", 1.0),
            attribute(node, "beta", 1.0),
            attribute(node, "transA", 0),
        )
        if options != (1.0, 1.0, 0):
            return False
        # An input that is left out may have an empty name.
        bias = "".join(node.input[2:3])
        return not bias or self._shapes.get(bias) == [matrix.outputs]

    def table(self, node: Any) -> Matrix | None:
        """Return the table that a Gather takes rows of; None where it is something else, or small."""
        takes_rows = node.op_type == "Gather" and attribute(node, "axis", 0) == 0
        if not takes_rows:
            return None
        matrix = self._matrices.get(node.input[0])
        if matrix is None or matrix.turned:
            return None
        rows, width = matrix.tensor.dims
        if rows < _SHORTEST_TABLE or width < _NARROWEST:
            return None
        return matrix


def attribute(node: Any, name: str, default: Any) -> Any:
    """Return the value of a node's attribute."""
    from onnx.helper import get_attribute_value

    for entry in node.attribute:
        if entry.name == name:
            return get_attribute_value(entry)
    return default


def branches(graph: Any) -> Iterator[Any]:
    """Yield the graphs inside of a graph's nodes, such as the branches of an If."""
    for node in graph.node:
        for entry in node.attribute:
            if entry.HasField("g"):
                yield entry.g
            yield from entry.graphs
