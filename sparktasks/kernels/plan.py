"""The plan that runs several kernels over one window of rows, and the cutting of windows.

The vectorized adapters and `LocalPipeline` run the same plan.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from sparktasks.kernels.arrow import lengths_of, offsets_of, strings, to_numpy

FIRST_WINDOW = 16
LARGEST_WINDOW = 8192
MODEL_WINDOW = 1024
WINDOW_BYTES = 32 * 1024 * 1024
FIRST_WINDOW_BYTES = 256 * 1024


class Kernel(Protocol):
    """Maps Arrow arrays, one per input column and of equal length, to one Arrow array of that length.

    Kernels are small picklable values; what they need at run time (sessions, tokenizers) is cached by the process. One
    that runs a model, or opens what a cell only names, has a ``window_rows``: the most rows it is to be given at once.
    """

    def __call__(self, *columns: pa.Array) -> pa.Array: ...


class Ref(NamedTuple):
    """Where a kernel's argument comes from: input ``place`` of the plan, or the output of step ``place``."""

    from_step: bool
    place: int


@dataclass(frozen=True)
class Step:
    """One kernel and the places its arguments come from."""

    kernel: Kernel
    arguments: tuple[Ref, ...]


@dataclass(frozen=True)
class Plan:
    """Kernels in the order they run, and the steps whose arrays are handed back."""

    steps: tuple[Step, ...]
    outputs: tuple[int, ...]

    @cached_property
    def needed(self) -> tuple[int, ...]:
        """The steps that some output depends on, in order: an overwritten or dropped column costs nothing."""
        wanted = set(self.outputs)
        for index in reversed(range(len(self.steps))):
            if index in wanted:
                wanted.update(ref.place for ref in self.steps[index].arguments if ref.from_step)
        return tuple(sorted(wanted))

    @cached_property
    def window_rows(self) -> int:
        """The most rows of a window. Cheap kernels take many, models as many as make full batches; where cells may be
        paths, the bytes of the cells are no bound."""
        bounds = [getattr(self.steps[index].kernel, "window_rows", LARGEST_WINDOW) for index in self.needed]
        return min(bounds, default=LARGEST_WINDOW)

    def run(self, columns: Sequence[pa.Array]) -> list[pa.Array]:
        """Run every needed kernel once over the rows of ``columns``; returns one array per output."""
        done: dict[int, pa.Array] = {}
        for index in self.needed:
            step = self.steps[index]
            arguments = [done[ref.place] if ref.from_step else columns[ref.place] for ref in step.arguments]
            done[index] = step.kernel(*arguments)
        return [done[index] for index in self.outputs]


def execute(plan: Plan, batches: Iterable[Sequence[pa.Array]]) -> Iterator[list[pa.Array]]:
    """Run a plan over batches in windows that grow from 16 rows on, bounded by the bytes they take and make.

    Small first windows let ``show(5)`` answer early; large later ones give the models full batches.
    """
    size, most_bytes = min(FIRST_WINDOW, plan.window_rows), FIRST_WINDOW_BYTES
    for batch in batches:
        columns = [plain(column) for column in batch]
        start, rows = 0, len(columns[0])
        while start < rows:
            window = _cut(columns, start, size, most_bytes)
            outputs = plan.run(window)
            yield outputs
            start += len(window[0])
            size = min(size * 2, plan.window_rows)
            most_bytes = _input_bytes(_bytes(window), _bytes(outputs))


def _bytes(columns: Sequence[pa.Array]) -> int:
    return sum(column.nbytes for column in columns)


def _cut(columns: Sequence[pa.Array], start: int, size: int, most_bytes: int) -> list[pa.Array]:
    while True:
        window = [column.slice(start, size) for column in columns]
        if size == 1 or _bytes(window) <= most_bytes:
            return window
        size = max(1, size // 2)


def _input_bytes(taken: int, made: int) -> int:
    """Return how many bytes the next window may take, if it makes of each as many as the last one did."""
    return int(WINDOW_BYTES / max(1.0, made / max(1, taken)))


def plain(column: pa.Array) -> pa.Array:
    """Return the array as kernels expect it: with 32-bit offsets throughout, and with strings that are UTF-8.

    Spark may send ``large_string`` and ``large_list``, and hands on what a text file holds, whatever its encoding.
    """
    small = _small(column.type)
    if small != column.type:
        column = column.cast(small)
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return _readable(column)
    return column


def _readable(column: pa.Array) -> pa.Array:
    """Put U+FFFD in the place of bytes that are not UTF-8."""
    if pa.types.is_string(column.type):
        texts = [
            None if raw is None else raw.decode("utf-8", "replace") for raw in column.cast(pa.binary()).to_pylist()
        ]
        return strings(texts)
    if pa.types.is_list(column.type):
        return pa.ListArray.from_arrays(_list_offsets(column), _readable(column.flatten()), type=column.type)
    if pa.types.is_struct(column.type):
        fields = [_readable(pc.struct_field(column, index)) for index in range(column.type.num_fields)]
        return pa.StructArray.from_arrays(fields, fields=list(column.type), mask=column.is_null())
    if pa.types.is_map(column.type):
        pairs = column.cast(pa.list_(pa.struct([column.type.key_field, column.type.item_field])))
        values = pairs.flatten()
        keys, items = (_readable(pc.struct_field(values, place)) for place in (0, 1))
        return pa.MapArray.from_arrays(_list_offsets(pairs), keys, items).cast(column.type)
    return column


def _list_offsets(column: pa.ListArray) -> pa.Array:
    """Return the offsets of lists as if they began at 0; a null offset stands for a null list."""
    return offsets_of(lengths_of(column), to_numpy(column.is_null()))


def _small(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_large_string(kind):
        return pa.string()
    if pa.types.is_large_binary(kind):
        return pa.binary()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(kind.value_field.with_type(_small(kind.value_type)))
    if pa.types.is_map(kind):
        return pa.map_(_small(kind.key_type), _small(kind.item_type))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_small(field.type)) for field in kind])
    return kind
