"""The header of an ONNX file: inputs, outputs, weight shapes and outside files, read without loading a weight.

Sessions are opened on executors only, yet a wrong bundle should fail on the driver, before a job starts. Reading the
protobuf's field headers through mmap takes milliseconds whatever the model's size. Field numbers: onnx.proto3.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from sparktasks.errors import BundleError
from sparktasks.runtime.protobuf import Message

_TYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
    16: "bfloat16",
}
BLOCK_PRODUCT = "MatMulNBits"

# Graphs inside of graphs: no exporter nests them so deep, and Python's own stack must not be what ends the search.
_DEEPEST = 64
_HOLDS_GRAPHS = frozenset({"If", "Loop", "Scan", "SequenceMap"})
_PICKS_ROWS = frozenset({"Gather", "GatherBlockQuantized"})
_SAME_VALUES = frozenset({"Cast", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})


@dataclass(frozen=True)
class Port:
    """A graph input or output: name, element type, and shape, where a str names a dimension that varies."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


def fixed_size(shape: Sequence[int | str], axis: int) -> int | None:
    """Return the size of an axis; None where it may vary, or the shape has not so many axes."""
    if len(shape) <= axis:
        return None
    size = shape[axis]
    if isinstance(size, str):
        return None
    return size


class BlockProduct(NamedTuple):
    """A kind of matrix product by weights in blocks (MatMulNBits): bits of a weight, weights in a block, and the
    accuracy level, 0 where the file leaves it to onnxruntime."""

    bits: int
    block_size: int
    accuracy_level: int


@dataclass(frozen=True)
class Graph:
    """What an ONNX file's header says; ``embedding_rows`` is the number of token ids the input embedding has rows for.

    ``external_files`` are the files of outside data that any tensor of it names, wherever in the graph it stands.
    ``operators`` are the types of its nodes, but for those inside of branches and loops. ``all_operators`` has those
    too, written ``domain.name`` where they are not ONNX's own, and leaves out the model's own functions.
    ``weight_types`` are the element types of its weights, ``block_products`` the kinds of its products by weights in
    blocks.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    opset: int
    external_files: tuple[str, ...]
    embedding_rows: int | None
    operators: frozenset[str]
    weight_types: frozenset[str] = frozenset()
    all_operators: frozenset[str] = frozenset()
    ir_version: int = 0
    block_products: frozenset[BlockProduct] = frozenset()

    @property
    def input_names(self) -> frozenset[str]:
        """The names of all inputs."""
        return frozenset(port.name for port in self.inputs)

    def input(self, name: str) -> Port | None:
        """Return an input by its name; None where there is none."""
        return _port_named(name, self.inputs)

    def output(self, name: str) -> Port | None:
        """Return an output by its name; None where there is none."""
        return _port_named(name, self.outputs)


def _port_named(name: str, ports: Sequence[Port]) -> Port | None:
    for port in ports:
        if port.name == name:
            return port
    return None


def read_graph(path: Path) -> Graph:
    """Read an ONNX file's header; `BundleError` where the file is cut short or is not ONNX."""
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            model = Message(data, 0, len(data))
            graphs = model.messages(7)
            if not graphs:
                raise EOFError("there is no graph in it")
            return _read(model, graphs[0])
    except (EOFError, IndexError, KeyError, ValueError) as error:
        raise BundleError(
            f"{path} is not a whole ONNX file: {error}. Was the download cut short, or is it a Git LFS pointer?"
        ) from error


def _read(model: Message, graph: Message) -> Graph:
    tensors = {tensor.first_text(8): tensor for tensor in graph.messages(5)}
    nodes = list(map(_node, graph.messages(1)))
    contents = _Contents()
    contents.add_graph(graph, nodes)

    # A model may come with operators of its own, written as functions: what they consist of is what must be known.
    own_functions = set()
    for function in model.messages(25):
        function_nodes = list(map(_node, function.messages(7)))
        contents.add_nodes(function_nodes)
        name, domain = function.first_text(1), function.first_text(10)
        own_functions.add(_qualified(domain, name))

    inputs = []
    for port in map(_port, graph.messages(11)):
        # Old files list their weights among the inputs, too.
        if port.name not in tensors:
            inputs.append(port)
    return Graph(
        inputs=tuple(inputs),
        outputs=tuple(map(_port, graph.messages(12))),
        opset=_opset(model),
        external_files=tuple(sorted(contents.files)),
        embedding_rows=_embedding_rows(nodes, tensors),
        operators=frozenset(node.kind for node in nodes),
        weight_types=frozenset(map(_element_type, tensors.values())),
        all_operators=frozenset(contents.operators - own_functions),
        ir_version=model.first_int(1),
        block_products=frozenset(contents.block_products),
    )


def _opset(model: Message) -> int:
    """Return the version of ONNX's own operators that a model is written in."""
    versions = [0]
    for entry in model.messages(8):
        if _is_own(entry.first_text(1)):
            versions.extend(entry.ints(2))
    return max(versions)


def _element_type(tensor: Message) -> str:
    return _TYPES.get(tensor.first_int(2), "other")


def _port(value: Message) -> Port:
    """Read an input or output (ValueInfoProto)."""
    name = value.texts(1)[0]
    tensors = value.within(2).messages(1)
    if not tensors:
        return Port(name, "sequence", ())
    element_type = _TYPES.get(tensors[0].first_int(1), "other")
    dimensions = tensors[0].within(2).messages(1)
    return Port(name, element_type, tuple(map(_dimension, dimensions)))


def _dimension(dimension: Message) -> int | str:
    """Return the size of an axis, or the name of one that varies."""
    sizes = dimension.ints(1)
    if sizes:
        return sizes[0]
    return dimension.first_text(2) or "?"


class _Node(NamedTuple):
    inputs: list[str]
    outputs: list[str]
    kind: str
    domain: str
    message: Message


def _node(message: Message) -> _Node:
    # Files have many thousands of nodes: one pass reads the four fields together.
    texts: dict[int, list[str]] = {1: [], 2: [], 4: [], 7: []}
    for number, value in message:
        if number in texts and isinstance(value, Message):
            texts[number].append(value.text())
    inputs, outputs, kinds, domains = texts.values()
    return _Node(inputs, outputs, kinds[0], "".join(domains[:1]), message)


class _Contents:
    """What a graph holds, in its branches and loops too: the files of its tensors, the types of its nodes, and the
    kinds of its products by weights in blocks."""

    def __init__(self) -> None:
        self.files: set[str] = set()
        self.operators: set[str] = set()
        self.block_products: set[BlockProduct] = set()

    def add_graph(self, graph: Message, nodes: list[_Node], depth: int = 0) -> None:
        """Walk a graph (GraphProto), and every graph inside of it: outside data may be named by any tensor."""
        if depth > _DEEPEST:
            raise ValueError(f"graphs are nested more than {_DEEPEST} deep")
        self.add_nodes(nodes, depth)
        for tensor in graph.messages(5):
            self._add_tensor(tensor)
        for tensor in graph.messages(15):
            self._add_sparse_tensor(tensor)

    def add_nodes(self, nodes: list[_Node], depth: int = 0) -> None:
        """Walk nodes, those of a graph or of a function of the model."""
        for node in nodes:
            self.operators.add(_qualified(node.domain, node.kind))
            if node.kind == BLOCK_PRODUCT:
                self.block_products.add(block_product(node.message))
            # Most nodes hold neither a graph nor a tensor of outside data, whose file is named under this key.
            if node.kind in _HOLDS_GRAPHS or node.message.has(b"location"):
                for attribute in node.message.messages(5):
                    self._add_attribute(attribute, depth)

    def _add_attribute(self, attribute: Message, depth: int) -> None:
        """Walk an attribute (AttributeProto): a tensor, a graph, a sparse tensor, or several of one kind."""
        for tensor in (*attribute.messages(5), *attribute.messages(10)):
            self._add_tensor(tensor)
        for graph in (*attribute.messages(6), *attribute.messages(11)):
            nodes = list(map(_node, graph.messages(1)))
            self.add_graph(graph, nodes, depth + 1)
        for tensor in (*attribute.messages(22), *attribute.messages(23)):
            self._add_sparse_tensor(tensor)

    def _add_tensor(self, tensor: Message) -> None:
        for entry in tensor.messages(13):
            if entry.texts(1) == ["location"]:
                self.files.update(entry.texts(2)[:1])

    def _add_sparse_tensor(self, tensor: Message) -> None:
        """Add the files of a sparse tensor's values and indices (SparseTensorProto)."""
        for dense in (*tensor.messages(1), *tensor.messages(2)):
            self._add_tensor(dense)


def block_product(node: Message) -> BlockProduct:
    """Read what kind of product a MatMulNBits node is (NodeProto)."""
    # An attribute that is missing has the default of onnxruntime's schema.
    numbers = {attribute.first_text(1): attribute.first_int(3) for attribute in node.messages(5)}
    return BlockProduct(numbers.get("bits", 4), numbers.get("block_size", 0), numbers.get("accuracy_level", 0))


def _qualified(domain: str, name: str) -> str:
    """Return the name of an operator, with its domain where it is not one of ONNX's own."""
    return name if _is_own(domain) else f"{domain}.{name}"


def _is_own(domain: str) -> bool:
    """Tell whether a domain is that of ONNX's own operators."""
    return domain in ("", "ai.onnx")


def _embedding_rows(nodes: list[_Node], tensors: dict[str, Message]) -> int | None:
    """Return the rows of the table that ``input_ids`` picks rows of; None where the graph hides it behind other
    nodes."""
    # Exporters put casts and reshapes between the ids and the lookup.
    ids = {"input_ids"}
    for node in nodes:
        if node.kind in _SAME_VALUES and node.inputs[0] in ids:
            ids.update(node.outputs)
        if node.kind in _PICKS_ROWS and node.inputs[1] in ids:
            table = tensors.get(node.inputs[0])
            # A graph may pick rows of something that it computes first.
            if table is not None:
                dimensions = table.ints(1)
                return next(iter(dimensions), None)
    return None
