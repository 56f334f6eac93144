"""Weights of a graph in 8 or 4 bits, in blocks: matrix products become MatMulNBits, embeddings GatherBlockQuantized.

Activations stay float32 between the nodes. Within MatMulNBits, accuracy level 4 rounds each block of a row's
activations to 8 bits by its own scale, so that a text's result does not depend on the texts it runs with.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

BLOCK = 32
LARGE = 1_500_000_000  # protobuf ends at 2 GiB

_DOMAIN = "com.microsoft"
_INT8_PRODUCTS = 4  # MatMulNBits' accuracy level; at the others, 8-bit products are slower than float32 ones

# Products of fewer outputs, such as a head of a few labels, stay float32: there is nothing to gain from them.
_NARROWEST = 32

# Tables of fewer rows, such as those of token types, stay float32 too.
_SHORTEST_TABLE = 256

# A product of so many times more outputs than inputs is the head of a language model; other layers have 8 at most.
_HEAD = 8

# Split takes its sizes as an input since then.
_SPLIT_OPSET = 13


def quantize_weights(source: Path, target: Path, bits: int, block: int = BLOCK) -> None:
    """Write a form of an ONNX file whose weight matrices and embeddings have 8 bits, or the matrices 4.

    ``block`` weights of an output share a scale: 16, 32, 64 or 128. The product that computes a graph's output, or a
    vocabulary's logits, keeps 8 bits in any case. The nodes inside of branches are rewritten too.
    """
    import onnx

    model = onnx.load(source)
    opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    _Rewriter(model.graph, bits, block, merges=opset >= _SPLIT_OPSET).rewrite(model.graph)
    for _ in range(2):  # what a dropped Transpose read can go then
        _drop_unread(model.graph, _names_read(model.graph))
    if _DOMAIN not in [entry.domain for entry in model.opset_import]:
        model.opset_import.append(onnx.helper.make_opsetid(_DOMAIN, 1))
    is_large = sum(len(tensor.raw_data) for tensor in model.graph.initializer) > LARGE
    onnx.save(model, target, save_as_external_data=is_large, location=f"{target.name}.data")


def round_in_blocks(rows: np.ndarray, bits: int, block: int = BLOCK) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Round float32 rows ``(rows, width)`` to unsigned integers, each block by a scale and a zero point of its own.

    Returns the integers ``(rows, blocks, block)``, the last block filled up with zeros, the scales and the zero points
    ``(rows, blocks)``: a weight is ``(integer - zero point) * scale``.

    >>> integers, scales, zeros = round_in_blocks(np.array([[-1.0, 0.0, 0.5]], np.float32), 4)
    >>> ((integers[0, 0, :3].astype(int) - zeros[0, 0]) * scales[0, 0]).round(6).tolist()
    [-1.0, 0.0, 0.5]
    """
    largest = 2**bits - 1
    blocks = -(-rows.shape[1] // block)
    padded = np.pad(rows, ((0, 0), (0, blocks * block - rows.shape[1]))).reshape(len(rows), blocks, block)
    # Zero is among the values, so that it is exact and the zero point is in range.
    low = np.minimum(padded.min(axis=-1), 0)
    high = np.maximum(padded.max(axis=-1), 0)
    scales = ((high - low) / largest).astype(np.float32)
    divisors = np.where(scales > 0, scales, np.float32(1))
    zeros = np.rint(-low / divisors)
    integers = np.rint(padded / divisors[..., None]) + zeros[..., None]
    return np.clip(integers, 0, largest).astype(np.uint8), scales, zeros.astype(np.uint8)


def pack_halves(values: np.ndarray) -> np.ndarray:
    """Pack 4-bit values along the last axis, two in a byte, the first in the lower half; an odd one is filled up."""
    if values.shape[-1] % 2:
        values = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, 1)])
    return np.asarray(values[..., 0::2] | (values[..., 1::2] << 4))


@dataclass(frozen=True)
class _Matrix:
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
        return int(self.tensor.dims[1 if self.turned else 0])

    @property
    def outputs(self) -> int:
        return int(self.tensor.dims[0 if self.turned else 1])

    def rows(self) -> np.ndarray:
        """Return the weights of each output, ``(outputs, inputs)``."""
        from onnx import numpy_helper

        values = numpy_helper.to_array(self.tensor)
        return values if self.turned else values.T


class _Scope:
    """The constants that the nodes of a graph can name: its own, and those of the graphs around it."""

    def __init__(self, graph: Any, outer: _Scope | None, number: int) -> None:
        self._shapes: dict[str, list[int]] = dict(outer._shapes) if outer else {}
        self._matrices: dict[str, _Matrix] = dict(outer._matrices) if outer else {}
        for tensor in graph.initializer:
            self._shapes[tensor.name] = list(tensor.dims)
            self._matrices.pop(tensor.name, None)
            if _is_float_matrix(tensor):
                self._matrices[tensor.name] = _Matrix(tensor, number)
        # A head that shares its weights with the embedding reads them through a Transpose.
        for node in graph.node:
            if node.op_type == "Transpose" and node.input[0] in self._matrices:
                self._matrices[node.output[0]] = replace(self._matrices[node.input[0]], turned=True)

    def weight(self, node: Any) -> _Matrix | None:
        """Return the weight of a matrix product; None where it is no product, or a small one, or not by a constant."""
        matrix = self._matrices.get(node.input[1]) if node.op_type in ("MatMul", "Gemm") else None
        if matrix is not None and node.op_type == "Gemm":
            matrix = self._gemm_weight(node, matrix)
        return matrix if matrix is not None and min(matrix.inputs, matrix.outputs) >= _NARROWEST else None

    def _gemm_weight(self, node: Any, matrix: _Matrix) -> _Matrix | None:
        """Return the weight of a Gemm; None where it does more than multiply by it and add a constant vector."""
        if _attribute(node, "transB", 0):
            matrix = replace(matrix, turned=not matrix.turned)
        factors = [_attribute(node, "alpha", 1.0), _attribute(node, "beta", 1.0)]
        biases = [self._shapes.get(name) for name in node.input[2:3] if name]
        is_plain = factors == [1.0, 1.0] and not _attribute(node, "transA", 0)
        return matrix if is_plain and biases in ([], [[matrix.outputs]]) else None

    def table(self, node: Any) -> _Matrix | None:
        """Return the table that a Gather takes rows of; None where it is something else, or small."""
        if node.op_type != "Gather" or _attribute(node, "axis", 0) != 0:
            return None
        matrix = self._matrices.get(node.input[0])
        if matrix is None or matrix.turned:
            return None
        rows, width = matrix.tensor.dims
        return matrix if rows >= _SHORTEST_TABLE and width >= _NARROWEST else None


class _Rewriter:
    """Puts quantised nodes in the place of products and embeddings; their weights go into the outermost graph."""

    def __init__(self, main: Any, bits: int, block: int, merges: bool) -> None:
        self._main = main
        self._bits = bits
        self._block = block
        self._merges = merges
        self._stored: dict[tuple, list[str]] = {}
        self._scopes = 0

    def rewrite(self, graph: Any, outer: _Scope | None = None) -> None:
        self._scopes += 1
        scope = _Scope(graph, outer, self._scopes)
        for inner in _branches(graph):
            self.rewrite(inner, scope)
        results = {port.name for port in graph.output}
        first, later = self._merged(graph, scope, results)
        nodes: list[Any] = []
        for node in graph.node:
            weight = scope.weight(node)
            table = scope.table(node)
            if node.output[0] in first:
                nodes.extend(self._products(first[node.output[0]], scope))
            elif node.output[0] in later:
                continue
            elif weight is not None:
                is_head = node.output[0] in results or weight.outputs > _HEAD * weight.inputs
                bits = 8 if is_head else self._bits
                nodes.append(self._product(node.input[0], [weight], list(node.output), bits, node.input[2:3]))
            elif table is not None:
                nodes.append(self._lookup(node, table))
            else:
                nodes.append(node)
        del graph.node[:]
        graph.node.extend(nodes)

    def _merged(self, graph: Any, scope: _Scope, results: set[str]) -> tuple[dict[str, list[Any]], set[str]]:
        """Return the products that become one, by the output of the first of them, and the outputs of the others.

        Products of the same input, such as those that make query, key and value, start one kernel then, and not three.
        """
        by_input: dict[str, list[Any]] = {}
        for node in graph.node:
            weight = scope.weight(node) if node.op_type == "MatMul" else None
            if weight is not None and node.output[0] not in results and weight.outputs <= _HEAD * weight.inputs:
                by_input.setdefault(node.input[0], []).append(node)
        groups = [group for group in by_input.values() if len(group) > 1 and self._merges]
        first = {group[0].output[0]: group for group in groups}
        later = {node.output[0] for group in groups for node in group[1:]}
        return first, later

    def _products(self, group: Sequence[Any], scope: _Scope) -> list[Any]:
        """Return one product for several of the same input, and the node that takes its result apart."""
        import onnx

        weights = [weight for weight in map(scope.weight, group) if weight is not None]
        outputs = [node.output[0] for node in group]
        whole = f"{outputs[0]}_merged"
        sizes = f"{outputs[0]}_sizes_{len(self._main.initializer)}"  # two branches may have outputs of one name
        widths = np.array([weight.outputs for weight in weights], np.int64)
        self._main.initializer.append(onnx.numpy_helper.from_array(widths, sizes))
        split = onnx.helper.make_node("Split", [whole, sizes], outputs, name=f"{outputs[0]}_split", axis=-1)
        return [self._product(group[0].input[0], weights, [whole], self._bits), split]

    def _product(
        self,
        source: str,
        weights: Sequence[_Matrix],
        outputs: list[str],
        bits: int,
        bias: Sequence[str] = (),
    ) -> Any:
        import onnx

        names = self._store(weights, bits)
        added = ["", *bias] if any(bias) else []  # the empty name is g_idx, an order of the inputs
        return onnx.helper.make_node(
            "MatMulNBits",
            [source, *names, *added],
            outputs,
            name=f"{outputs[0]}_product",
            domain=_DOMAIN,
            K=weights[0].inputs,
            N=sum(weight.outputs for weight in weights),
            bits=bits,
            block_size=self._block,
            accuracy_level=_INT8_PRODUCTS,
        )

    def _store(self, weights: Sequence[_Matrix], bits: int) -> list[str]:
        """Put the weights of one product into the outermost graph; returns the names of integers, scales and zeros."""
        key = (bits, *(weight.key for weight in weights))
        if key not in self._stored:
            parts = [round_in_blocks(weight.rows(), bits, self._block) for weight in weights]
            integers, scales, zeros = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
            if bits == 4:
                integers, zeros = pack_halves(integers), pack_halves(zeros)
            self._stored[key] = self._added(f"{weights[0].tensor.name}_{bits}bit", integers, scales, zeros)
        return self._stored[key]

    def _lookup(self, node: Any, table: _Matrix) -> Any:
        """Return the node that takes rows of a table in 8 bits."""
        import onnx

        key = ("table", table.key)
        if key not in self._stored:
            rows = onnx.numpy_helper.to_array(table.tensor)
            integers, scales, zeros = round_in_blocks(rows, 8, self._block)
            flat = integers.reshape(len(rows), -1)[:, : rows.shape[1]]
            self._stored[key] = self._added(f"{table.tensor.name}_table", flat, scales, zeros)
        integers_name, scales_name, zeros_name = self._stored[key]
        return onnx.helper.make_node(
            "GatherBlockQuantized",
            [integers_name, node.input[1], scales_name, zeros_name],
            list(node.output),
            name=f"{node.output[0]}_lookup",
            domain=_DOMAIN,
            bits=8,
            block_size=self._block,
            gather_axis=0,
            quantize_axis=1,
        )

    def _added(self, stem: str, integers: np.ndarray, scales: np.ndarray, zeros: np.ndarray) -> list[str]:
        """Add the arrays of a weight to the outermost graph, for all branches to use; returns their names."""
        from onnx import numpy_helper

        number = len(self._stored)  # two branches may have weights of one name
        arrays = {"integers": integers, "scales": scales, "zeros": zeros}
        names = [f"{stem}_{number}_{kind}" for kind in arrays]
        for name, array in zip(names, arrays.values(), strict=True):
            self._main.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return names


def _is_float_matrix(tensor: Any) -> bool:
    from onnx import TensorProto

    return bool(tensor.data_type == TensorProto.FLOAT and len(tensor.dims) == 2)


def _attribute(node: Any, name: str, default: Any) -> Any:
    from onnx.helper import get_attribute_value

    return next((get_attribute_value(entry) for entry in node.attribute if entry.name == name), default)


def _branches(graph: Any) -> Iterator[Any]:
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield attribute.g
            yield from attribute.graphs


def _names_read(graph: Any) -> set[str]:
    """Return all names that nodes read or graphs give out, those inside of branches too."""
    names = {port.name for port in graph.output}
    for node in graph.node:
        names.update(node.input)
    for inner in _branches(graph):
        names |= _names_read(inner)
    return names


def _drop_unread(graph: Any, read: set[str]) -> None:
    """Leave out the weights that nothing reads any more, and the nodes that turned them."""
    for inner in _branches(graph):
        _drop_unread(inner, read)
    nodes = [node for node in graph.node if node.op_type != "Transpose" or read.intersection(node.output)]
    tensors = [tensor for tensor in graph.initializer if tensor.name in read]
    dropped = {tensor.name for tensor in graph.initializer} - read
    inputs = [port for port in graph.input if port.name not in dropped]  # old files list their weights there too
    del graph.input[:]
    graph.input.extend(inputs)
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.initializer[:]
    graph.initializer.extend(tensors)
