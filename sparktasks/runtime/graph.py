"""The header of an ONNX file: inputs, outputs, weight shapes and outside files, read without loading a weight.

Sessions are opened on executors only, yet a wrong bundle should fail on the driver, before a job starts. Reading the
protobuf's field headers through mmap takes milliseconds whatever the model's size. Field numbers: onnx.proto3.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from sparktasks.errors import BundleError

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
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_VARINT_BYTES = 10  # of 64 bits
_DEEPEST = 64  # branches and loops inside of each other
_HOLDS_GRAPHS = frozenset({"If", "Loop", "Scan", "SequenceMap"})


@dataclass(frozen=True)
class Port:
    """A graph input or output: name, element type, and shape, where a str names a dimension that varies."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class Graph:
    """What an ONNX file's header says; ``embedding_rows`` is the number of token ids the input embedding has rows for.

    ``external_files`` are the files of outside data that any tensor of it names, wherever in the graph it stands.
    ``operators`` are the types of its nodes, but for those inside of branches and loops. ``all_operators`` has those
    too, written ``domain.name`` where they are not ONNX's own, and leaves out the model's own functions.
    ``weight_types`` are the element types of its weights.
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


class _Message:
    """A slice of a protobuf message; iterating gives (field number, value), value being an int or a `_Message`."""

    def __init__(self, data: mmap.mmap, start: int, end: int) -> None:
        self.data, self.start, self.end = data, start, end

    def _varint(self, at: int) -> tuple[int, int]:
        value = 0
        for shift in range(0, 7 * _VARINT_BYTES, 7):
            byte = self.data[at]
            value |= (byte & 0x7F) << shift
            at += 1
            if byte < 0x80:
                return value, at
        raise EOFError(f"byte {at - 1} goes on with a number of more than 64 bits")

    def __iter__(self) -> Iterator[tuple[int, int | _Message]]:
        at = self.start
        while at < self.end:
            key, at = self._varint(at)
            wire = key & 7
            if wire == _VARINT:
                value, at = self._varint(at)
                yield key >> 3, value
                continue
            size, at = self._varint(at) if wire == _BYTES else ({_FIXED64: 8, _FIXED32: 4}[wire], at)
            if at + size > self.end:
                raise EOFError(f"byte {at} announces {size} more bytes, {self.end - at} are left")
            if wire == _BYTES:
                yield key >> 3, _Message(self.data, at, at + size)
            at += size

    def text(self) -> str:
        return self.data[self.start : self.end].decode()

    def has(self, part: bytes) -> bool:
        return self.data.find(part, self.start, self.end) >= 0

    def messages(self, number: int) -> list[_Message]:
        return [value for field, value in self if field == number and isinstance(value, _Message)]

    def texts(self, number: int) -> list[str]:
        return [message.text() for message in self.messages(number)]

    def ints(self, number: int) -> list[int]:
        found: list[int] = []
        for field, value in self:
            if field == number:
                found.extend([value] if isinstance(value, int) else value.packed())
        return found

    def packed(self) -> list[int]:
        values, at = [], self.start
        while at < self.end:
            value, at = self._varint(at)
            values.append(value)
        return values


def read_graph(path: Path) -> Graph:
    """Read an ONNX file's header; `BundleError` where the file is cut short or is not ONNX."""
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            model = _Message(data, 0, len(data))
            graphs = model.messages(7)
            if not graphs:
                raise EOFError("there is no graph in it")
            return _read(model, graphs[0])
    except (EOFError, IndexError, KeyError, ValueError) as error:
        raise BundleError(
            f"{path} is not a whole ONNX file: {error}. Was the download cut short, or is it a Git LFS pointer?"
        ) from error


def _opset(model: _Message) -> int:
    """Return the version of ONNX's own operators that a model is written in."""
    own = [entry for entry in model.messages(8) if entry.texts(1) in ([], [""], ["ai.onnx"])]
    return max((version for entry in own for version in entry.ints(2)), default=0)


def _read(model: _Message, graph: _Message) -> Graph:
    tensors = {tensor.texts(8)[0]: tensor for tensor in graph.messages(5) if tensor.texts(8)}
    nodes = [_node(message) for message in graph.messages(1)]
    ports = [_port(value) for value in graph.messages(11)]
    whole = _scan(graph, nodes)
    for function in model.messages(25):
        whole.add(_scan_function(function))
    functions = {_qualified(function.texts(10), function.texts(1)) for function in model.messages(25)}
    return Graph(
        inputs=tuple(port for port in ports if port.name not in tensors),
        outputs=tuple(_port(value) for value in graph.messages(12)),
        opset=_opset(model),
        external_files=tuple(sorted(whole.files)),
        embedding_rows=_embedding_rows(nodes, tensors),
        operators=frozenset(node.kind for node in nodes),
        weight_types=frozenset(_element_type(tensor) for tensor in tensors.values()),
        all_operators=frozenset(whole.operators - functions),
        ir_version=next(iter(model.ints(1)), 0),
    )


def _element_type(tensor: _Message) -> str:
    return _TYPES.get(next(iter(tensor.ints(2)), 0), "other")


def _port(value: _Message) -> Port:
    tensor = next((kind for proto in value.messages(2) for kind in proto.messages(1)), None)
    if tensor is None:
        return Port(value.texts(1)[0], "sequence", ())
    shape: list[int | str] = []
    for dimension in (dim for proto in tensor.messages(2) for dim in proto.messages(1)):
        shape.append((dimension.ints(1) or dimension.texts(2) or ["?"])[0])
    return Port(value.texts(1)[0], _TYPES.get((tensor.ints(1) or [0])[0], "other"), tuple(shape))


def _locations(tensor: _Message) -> list[str]:
    entries = [(entry.texts(1), entry.texts(2)) for entry in tensor.messages(13)]
    return [value[0] for key, value in entries if key == ["location"] and value]


@dataclass
class _Parts:
    """What a graph holds, in its branches and loops too: the files of its tensors, and the types of its nodes."""

    files: set[str] = field(default_factory=set)
    operators: set[str] = field(default_factory=set)

    def add(self, other: _Parts) -> None:
        self.files |= other.files
        self.operators |= other.operators


def _scan(graph: _Message, nodes: list[_Node], depth: int = 0) -> _Parts:
    """Walk a graph (GraphProto), and every graph inside of it: outside data may be named by any tensor."""
    if depth > _DEEPEST:
        raise ValueError(f"graphs are nested more than {_DEEPEST} deep")
    found = _scan_nodes(nodes, depth)
    for tensor in graph.messages(5):
        found.files.update(_locations(tensor))
    for tensor in graph.messages(15):
        found.files.update(_sparse_locations(tensor))
    return found


def _scan_function(function: _Message) -> _Parts:
    """Walk a function of the model (FunctionProto)."""
    return _scan_nodes([_node(message) for message in function.messages(7)], 0)


def _scan_nodes(nodes: list[_Node], depth: int) -> _Parts:
    found = _Parts()
    for node in nodes:
        found.operators.add(_qualified(node.domain, [node.kind]))
        # Most nodes hold neither a graph nor a tensor of outside data, whose file is named under this key.
        if node.kind in _HOLDS_GRAPHS or node.message.has(b"location"):
            for attribute in node.message.messages(5):
                found.add(_scan_attribute(attribute, depth))
    return found


def _scan_attribute(attribute: _Message, depth: int) -> _Parts:
    """Walk an attribute (AttributeProto): a tensor, a graph, a sparse tensor, or several of one kind."""
    found = _Parts()
    for number, value in attribute:
        if not isinstance(value, _Message):
            continue
        if number in (5, 10):
            found.files.update(_locations(value))
        elif number in (6, 11):
            found.add(_scan(value, [_node(message) for message in value.messages(1)], depth + 1))
        elif number in (22, 23):
            found.files.update(_sparse_locations(value))
    return found


def _sparse_locations(tensor: _Message) -> list[str]:
    """Return the files of a sparse tensor's values and indices (SparseTensorProto)."""
    return [location for part in (1, 2) for dense in tensor.messages(part) for location in _locations(dense)]


class _Node(NamedTuple):
    inputs: list[str]
    outputs: list[str]
    kind: str
    domain: list[str]
    message: _Message


def _node(message: _Message) -> _Node:
    found: dict[int, list[str]] = {1: [], 2: [], 4: [], 7: []}
    for number, value in message:
        if number in found and isinstance(value, _Message):
            found[number].append(value.text())
    return _Node(found[1], found[2], found[4][0], found[7], message)


def _qualified(domain: list[str], name: list[str]) -> str:
    own = domain in ([], [""], ["ai.onnx"])
    return name[0] if own else f"{domain[0]}.{name[0]}"


def _embedding_rows(nodes: list[_Node], tensors: dict[str, _Message]) -> int | None:
    """Find the table that ``input_ids`` picks rows of; None where the graph hides it behind other nodes."""
    ids = {"input_ids"}
    for node in nodes:
        if node.kind in _SAME_VALUES and node.inputs[0] in ids:
            ids.update(node.outputs)
        elif node.kind in _PICKS_ROWS and node.inputs[1] in ids and node.inputs[0] in tensors:
            return next(iter(tensors[node.inputs[0]].ints(1)), None)
    return None


_PICKS_ROWS = frozenset({"Gather", "GatherBlockQuantized"})
_SAME_VALUES = frozenset({"Cast", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
