"""What a Spark worker runs: a plan behind an ``arrow_udf`` or a ``pandas_udf``.

What it needs of Spark comes in from there: the task's threads and GPU, the place of a file that was sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from sparktasks.kernels.parcels import Parcel, receive
from sparktasks.kernels.plan import Plan, execute

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class TaskResources:
    """What Spark gives the task: processor cores, the number of its GPU, and where files lie that Spark sent.

    ``cores`` is None outside of a task.
    """

    cores: int | None = None
    gpu: int | None = None
    find_file: Callable[[str], str] | None = None


def prepare(sent: Sequence[tuple[Any, ...]], resources: TaskResources) -> None:
    """Tell this process which folders were sent to it, and the model runtime which threads and GPU it has."""
    from sparktasks.runtime import devices, threads

    receive([Parcel(*fields) for fields in sent], resources.find_file)
    if resources.cores is not None:
        threads.use(resources.cores)
        devices.use_gpu(resources.gpu)


def run_arrow(batches: Iterator[Any], plan: Plan) -> Iterator[pa.Array]:
    """Run a plan behind an ``arrow_udf``."""
    for outputs in execute(plan, _tuples(batches)):
        yield pa.StructArray.from_arrays(outputs, names=[f"c{index}" for index in range(len(outputs))])


def run_pandas(batches: Iterator[Any], plan: Plan, inputs: Sequence[pa.DataType]) -> Iterator[pd.DataFrame]:
    """Run a plan behind a ``pandas_udf``; its columns come and go flat, ``inputs`` are the types of those that come."""
    import pandas as pd

    from sparktasks.kernels.flat import flat_arrays, series, unflatten

    columns = (unflatten(batch, inputs) for batch in _tuples(batches))
    for outputs in execute(plan, columns):
        flat: list[pa.Array] = []
        for column in outputs:
            flat.extend(flat_arrays(column))
        yield pd.DataFrame({f"c{index}": series(array) for index, array in enumerate(flat)})


def _tuples(batches: Iterator[Any]) -> Iterator[tuple[Any, ...]]:
    """Yield tuples of columns: of a function of one column Spark gives the bare column."""
    for batch in batches:
        if isinstance(batch, tuple):
            yield batch
        else:
            yield (batch,)
