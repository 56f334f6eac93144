"""The plan that runs several kernels over one window of rows, and the cutting of windows.

The vectorized adapters and `LocalPipeline` run the same plan.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

import pyarrow as pa

from sparktasks.kernels.incoming import plain

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
        needed = set(self.outputs)
        # A step reads only steps before it: one pass from the last to the first meets each after all that read it.
        for index in reversed(range(len(self.steps))):
            if index not in needed:
                continue
            for ref in self.steps[index].arguments:
                if ref.from_step:
                    needed.add(ref.place)
        return tuple(sorted(needed))

    @cached_property
    def window_rows(self) -> int:
        """The most rows of a window. Cheap kernels take many, models as many as make full batches; where cells may be
        paths, the bytes of the cells are no bound."""
        bounds = [getattr(self.steps[index].kernel, "window_rows", LARGEST_WINDOW) for index in self.needed]
        return min(bounds, default=LARGEST_WINDOW)

    def run(self, columns: Sequence[pa.Array]) -> list[pa.Array]:
        """Run every needed kernel once over the rows of ``columns``; returns one array per output."""
        results: dict[int, pa.Array] = {}
        for index in self.needed:
            step = self.steps[index]
            arguments = []
            for ref in step.arguments:
                arrays = results if ref.from_step else columns
                arguments.append(arrays[ref.place])
            results[index] = step.kernel(*arguments)
        return [results[index] for index in self.outputs]


def execute(plan: Plan, batches: Iterable[Sequence[pa.Array]]) -> Iterator[list[pa.Array]]:
    """Run a plan over batches in windows that grow from 16 rows on, bounded by the bytes they take and make.

    Small first windows let ``show(5)`` answer early; large later ones give the models full batches.
    """
    size = min(FIRST_WINDOW, plan.window_rows)
    most_bytes = FIRST_WINDOW_BYTES
    for batch in batches:
        columns = [plain(column) for column in batch]
        rows = len(columns[0])
        start = 0
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
    """Return the next ``size`` rows, or fewer where they hold more bytes; one row at least, however large."""
    while True:
        window = [column.slice(start, size) for column in columns]
        if size == 1 or _bytes(window) <= most_bytes:
            return window
        size = max(1, size // 2)


def _input_bytes(input_bytes: int, output_bytes: int) -> int:
    """Return how many bytes the next window may take, if it makes of each as many as the last one did."""
    growth = output_bytes / max(1, input_bytes)
    # Where the output is smaller, the input is what is bounded.
    return int(WINDOW_BYTES / max(1.0, growth))
