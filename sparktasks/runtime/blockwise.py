"""Weights of a graph in 8 or 4 bits, in blocks: matrix products become MatMulNBits, embeddings GatherBlockQuantized.

Activations stay float32 between the nodes. Within MatMulNBits, accuracy level 4 rounds each block of a row's
activations to 8 bits by its own scale, so that a text's result does not depend on the texts it runs with.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sparktasks.runtime.accuracy import INT8_PRODUCTS
from sparktasks.runtime.graph import BLOCK_PRODUCT
from sparktasks.runtime.weight_matrices import Matrix, Scope, branches

BLOCK = 32
LARGE = 1_500_000_000  # protobuf ends at 2 GiB

_DOMAIN = "com.microsoft"

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
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    opset = opsets.get("", opsets.get("ai.onnx", 0))
    _Rewriter(model.graph, bits, block, merges=opset >= _SPLIT_OPSET).rewrite(model.graph)
    # The second pass takes what a dropped Transpose read.
    for _ in range(2):
        _drop_unread(model.graph, _names_read(model.graph))
    if _DOMAIN not in opsets:
        model.opset_import.append(onnx.helper.make_opsetid(_DOMAIN, 1))
    weight_bytes = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    is_large = weight_bytes > LARGE
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


class _Rewriter:
    """Puts quantised nodes in the place of products and embeddings; their weights go into the outermost graph."""

    def __init__(self, main: Any, bits: int, block: int, merges: bool) -> None:
        self._main = main
        self._bits = bits
        self._block = block
        self._merges = merges
        self._stored: dict[tuple, list[str]] = {}
        self._scopes = 0

    def rewrite(self, graph: Any, outer: Scope | None = None) -> None:
        """Replace the nodes of a graph, and of every graph inside of it."""
        self._scopes += 1
        scope = Scope(graph, outer, self._scopes)
        for inner in branches(graph):
            self.rewrite(inner, scope)
        results = {port.name for port in graph.output}

        # The product of a whole group stands where its first one stood; the place of every other one stays empty.
        merged: dict[str, Sequence[Any]] = {}
        for group in self._groups(graph, scope, results):
            first, *others = [node.output[0] for node in group]
            merged.update(dict.fromkeys(others, ()))
            merged[first] = self._merged_product(group, scope)

        nodes: list[Any] = []
        for node in graph.node:
            output = node.output[0]
            if output in merged:
                nodes.extend(merged[output])
            else:
                nodes.append(self._replaced(node, scope, results))
        _keep(graph.node, nodes)

    def _replaced(self, node: Any, scope: Scope, results: set[str]) -> Any:
        """Return the quantised node that takes a node's place; the node itself where it has no large weight."""
        weight = scope.weight(node)
        if weight is not None:
            is_head = node.output[0] in results or _is_vocabulary(weight)
            bits = 8 if is_head else self._bits
            return self._product(node.input[0], [weight], list(node.output), bits, node.input[2:3])
        table = scope.table(node)
        if table is not None:
            return self._lookup(node, table)
        return node

    def _groups(self, graph: Any, scope: Scope, results: set[str]) -> list[list[Any]]:
        """Return the products that become one: several of the same input, such as those of query, key and value.

        They start one kernel then, and not three.
        """
        if not self._merges:
            return []
        by_input: dict[str, list[Any]] = {}
        for node in graph.node:
            if node.op_type != "MatMul" or node.output[0] in results:
                continue
            weight = scope.weight(node)
            if weight is not None and not _is_vocabulary(weight):
                by_input.setdefault(node.input[0], []).append(node)
        return [group for group in by_input.values() if len(group) > 1]

    def _merged_product(self, group: Sequence[Any], scope: Scope) -> list[Any]:
        """Return one product for several of the same input, and the node that takes its result apart."""
        import onnx

        weights = list(filter(None, map(scope.weight, group)))
        outputs = [node.output[0] for node in group]
        whole = f"{outputs[0]}_merged"
        # Two branches may have outputs of one name.
        sizes = f"{outputs[0]}_sizes_{len(self._main.initializer)}"
        widths = np.array([weight.outputs for weight in weights], np.int64)
        self._main.initializer.append(onnx.numpy_helper.from_array(widths, sizes))
        split = onnx.helper.make_node("Split", [whole, sizes], outputs, name=f"{outputs[0]}_split", axis=-1)
        return [self._product(group[0].input[0], weights, [whole], self._bits), split]

    def _product(
        self,
        source: str,
        weights: Sequence[Matrix],
        outputs: list[str],
        bits: int,
        bias: Sequence[str] = (),
    ) -> Any:
        """Return the node that multiplies by weights in blocks."""
        import onnx

        inputs = [source, *self._store(weights, bits)]
        if any(bias):
            # The empty name is g_idx, an order of the inputs.
            inputs.extend(("", *bias))
        return onnx.helper.make_node(
            BLOCK_PRODUCT,
            inputs,
            outputs,
            name=f"{outputs[0]}_product",
            domain=_DOMAIN,
            K=weights[0].inputs,
            N=sum(weight.outputs for weight in weights),
            bits=bits,
            block_size=self._block,
            accuracy_level=INT8_PRODUCTS,
        )

    def _store(self, weights: Sequence[Matrix], bits: int) -> list[str]:
        """Put the weights of one product into the outermost graph; returns the names of integers, scales and zeros."""
        key = (bits, *(weight.key for weight in weights))
        if key not in self._stored:
            parts = [round_in_blocks(weight.rows(), bits, self._block) for weight in weights]
            integers, scales, zeros = map(np.concatenate, zip(*parts, strict=True))
            if bits == 4:
                integers = pack_halves(integers)
                zeros = pack_halves(zeros)
            self._stored[key] = self._added(f"{weights[0].name}_{bits}bit", integers, scales, zeros)
        return self._stored[key]

    def _lookup(self, node: Any, table: Matrix) -> Any:
        """Return the node that takes rows of a table in 8 bits."""
        import onnx

        key = ("table", table.key)
        if key not in self._stored:
            rows = table.stored()
            integers, scales, zeros = round_in_blocks(rows, 8, self._block)
            flat = integers.reshape(len(rows), -1)[:, : rows.shape[1]]
            self._stored[key] = self._added(f"{table.name}_table", flat, scales, zeros)
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
        arrays = {
            f"{stem}_{number}_integers": integers,
            f"{stem}_{number}_scales": scales,
            f"{stem}_{number}_zeros": zeros,
        }
        for name, array in arrays.items():
            self._main.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return list(arrays)


def _is_vocabulary(weight: Matrix) -> bool:
    """Tell whether a product computes the logits of a vocabulary."""
    return weight.outputs > _HEAD * weight.inputs


def _drop_unread(graph: Any, read: set[str]) -> None:
    """Leave out the weights that nothing reads any more, and the nodes that turned them."""
    for inner in branches(graph):
        _drop_unread(inner, read)
    unread = {tensor.name for tensor in graph.initializer} - read
    # Old files list their weights among the inputs, too.
    for entries in (graph.input, graph.initializer):
        _keep(entries, [entry for entry in entries if entry.name not in unread])

    nodes = []
    for node in graph.node:
        if node.op_type != "Transpose" or not read.isdisjoint(node.output):
            nodes.append(node)
    _keep(graph.node, nodes)


def _keep(entries: Any, kept: list[Any]) -> None:
    """Leave only some entries in a field of a message."""
    del entries[:]
    entries.extend(kept)


def _names_read(graph: Any) -> set[str]:
    """Return all names that nodes read or graphs give out, those inside of branches too."""
    names = {port.name for port in graph.output}
    for node in graph.node:
        names.update(node.input)
    for inner in branches(graph):
        names |= _names_read(inner)
    return names
