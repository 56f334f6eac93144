"""The executor half: kernels, the plan that runs several of them over one window of rows, and the cutting of windows.

Nothing here touches Spark: the vectorized adapters and `LocalPipeline` run the same plan.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

import pyarrow as pa

FIRST_WINDOW = 16
LARGEST_WINDOW = 1024
WINDOW_BYTES = 32 * 1024 * 1024
FIRST_WINDOW_BYTES = 256 * 1024


class Kernel(Protocol):
    """Maps Arrow arrays, one per input column and of equal length, to one Arrow array of that length.

    Kernels are small picklable values; what they need at run time (sessions, tokenizers) is cached by the process.
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

    def run(self, columns: Sequence[pa.Array]) -> list[pa.Array]:
        """Run every needed kernel once over the rows of ``columns``; returns one array per output."""
        done: dict[int, pa.Array] = {}
        for index in self.needed:
            step = self.steps[index]
            done[index] = step.kernel(
                *(done[ref.place] if ref.from_step else columns[ref.place] for ref in step.arguments)
            )
        return [done[index] for index in self.outputs]


def execute(plan: Plan, batches: Iterable[Sequence[pa.Array]]) -> Iterator[list[pa.Array]]:
    """Run a plan over batches in windows that grow from 16 to 1,024 rows, bounded by the bytes they take and make.

    Small first windows let ``show(5)`` answer early; large later ones give the models full batches.
    """
    size, most_bytes = FIRST_WINDOW, FIRST_WINDOW_BYTES
    for batch in batches:
        columns = [plain(column) for column in batch]
        start, rows = 0, len(columns[0])
        while start < rows:
            window = _cut(columns, start, size, most_bytes)
            outputs = plan.run(window)
            yield outputs
            start += len(window[0])
            size = min(size * 2, LARGEST_WINDOW)
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
    """Return the array with 32-bit offsets throughout: Spark may send ``large_string`` and ``large_list``."""
    small = _small(column.type)
    return column if small == column.type else column.cast(small)


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
