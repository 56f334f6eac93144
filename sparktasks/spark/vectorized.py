"""The two UDF adapters: the same plan behind an ``arrow_udf`` (Spark >= 4.1) or a ``pandas_udf`` (older, or on
request).

Both are iterator UDFs under a generator. The Arrow one returns whole columns. The pandas one would crawl on nested
structs, so Catalyst takes annotation columns apart into flat arrays on the way in and puts them together on the way
out.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyspark
from pyspark import TaskContext
from pyspark.cloudpickle import dumps
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import DataType, StructField, StructType

from sparktasks.errors import ParamError
from sparktasks.spark.delivery import Parcel, receive
from sparktasks.spark.flat import assembled, flat_arrays, flat_columns, flat_types, series, unflatten
from sparktasks.spark.kernels import Plan, execute

if TYPE_CHECKING:
    import pandas as pd

ADAPTER_SETTING = "spark.sparktasks.vectorized"
_SPARK = tuple(int(part) for part in pyspark.__version__.split(".")[:2])

Fused = tuple[DataFrame, list[str], list[Column]]


def fused_columns(
    base: DataFrame,
    plan: Plan,
    inputs: Sequence[tuple[str, DataType]],
    outputs: Sequence[DataType],
    parcels: Sequence[Parcel] = (),
) -> Fused:
    """Run a plan over ``base`` in one UDF; ``parcels`` hold the bundles that were sent to the executors for it.

    Returns the frame with temporary columns appended, their names, and one expression over them for each output.
    """
    if not outputs:
        return base, [], []
    return _ADAPTERS[adapter_of(base)](base, plan, parcels, inputs, outputs)


def adapter_of(df: DataFrame) -> str:
    """Name the adapter a frame's session uses: ``arrow`` where Spark has it, ``pandas`` otherwise or on request."""
    asked = df.sparkSession.conf.get(ADAPTER_SETTING, "auto")
    if asked not in ("auto", *_ADAPTERS):
        raise ParamError(f"{ADAPTER_SETTING}={asked!r} is not allowed: it takes 'auto', 'arrow' or 'pandas'")
    newest = "arrow" if _SPARK >= (4, 1) else "pandas"
    if asked == "arrow" and newest == "pandas":
        raise ParamError(f"{ADAPTER_SETTING}='arrow' needs Spark 4.1 or newer; this is {pyspark.__version__}")
    return newest if asked == "auto" else str(asked)


def quoted(name: str) -> Column:
    """Refer to a top-level column by its exact name, whatever characters it has."""
    return F.col("`" + name.replace("`", "``") + "`")


def _by_arrow(
    base: DataFrame,
    plan: Plan,
    parcels: Sequence[Parcel],
    inputs: Sequence[tuple[str, DataType]],
    outputs: Sequence[DataType],
) -> Fused:
    from pyspark.sql.functions import arrow_udf  # type: ignore[attr-defined]

    udf = arrow_udf(_arrow_function(plan, parcels), _positional(outputs))
    raw, names = _generated(base, udf(*(quoted(name) for name, _ in inputs)), len(outputs))
    return raw, names, [F.col(name) for name in names]


def _by_pandas(
    base: DataFrame,
    plan: Plan,
    parcels: Sequence[Parcel],
    inputs: Sequence[tuple[str, DataType]],
    outputs: Sequence[DataType],
) -> Fused:
    from pyspark.sql.functions import pandas_udf  # type: ignore[attr-defined]

    arguments = [flat for name, dtype in inputs for flat in flat_columns(quoted(name), dtype)]
    counts = [len(flat_types(dtype)) for dtype in outputs]
    types = [kind for dtype in outputs for kind in flat_types(dtype)]
    udf = pandas_udf(_pandas_function(plan, parcels, [dtype for _, dtype in inputs], outputs), _positional(types))
    raw, names = _generated(base, udf(*arguments), len(types))
    flat = iter(names)
    return (
        raw,
        names,
        [
            assembled([F.col(next(flat)) for _ in range(count)], dtype)
            for dtype, count in zip(outputs, counts, strict=True)
        ],
    )


_ADAPTERS: dict[str, Callable[..., Fused]] = {"arrow": _by_arrow, "pandas": _by_pandas}


def _positional(types: Sequence[DataType]) -> StructType:
    return StructType([StructField(f"c{index}", dtype) for index, dtype in enumerate(types)])


def _generated(base: DataFrame, struct: Column, width: int) -> tuple[DataFrame, list[str]]:
    mark = uuid.uuid4().hex[:12]
    names = [f"sparktasks_{mark}_{index}" for index in range(width)]
    return base.select("*", F.inline(F.array(struct)).alias(*names)), names


def _arrow_function(plan: Plan, parcels: Sequence[Parcel]) -> Callable[..., Any]:
    fused = _function("run_arrow", plan, parcels)
    fused.__annotations__ = {"batches": Iterator[tuple[pa.Array, ...]], "return": Iterator[pa.Array]}
    return fused


def _pandas_function(
    plan: Plan, parcels: Sequence[Parcel], inputs: Sequence[DataType], outputs: Sequence[DataType]
) -> Callable[..., Any]:
    import pandas as pd

    fused = _function("run_pandas", plan, parcels, inputs, outputs)
    fused.__annotations__ = {"batches": Iterator[tuple[pd.Series, ...]], "return": Iterator[pd.DataFrame]}
    return fused


def _function(name: str, plan: Plan, parcels: Sequence[Parcel], *rest: Any) -> Callable[..., Any]:
    """Make what Spark pickles. It names nothing of ours until it runs, so that an executor that lacks us can say so.

    Broadcasts are found by the pickling of the function itself, and so stay outside of what is pickled here.
    """
    pickled: bytes = dumps((plan, *rest))  # type: ignore[no-untyped-call]
    sent = [(parcel.hash, parcel.way, parcel.files, parcel.parts) for parcel in parcels]

    def fused(batches: Iterator[Any]) -> Iterator[Any]:
        import pickle
        import socket
        import sys

        try:
            from sparktasks.spark import vectorized

            arguments = pickle.loads(pickled)
        except ImportError as error:
            raise ImportError(
                f"the Python of the executor on {socket.gethostname()} ({sys.executable}) lacks a package: {error}. "
                "Install sparktasks there, or send an environment with the job: spark-submit --archives ENV.tar.gz#env"
            ) from error
        yield from getattr(vectorized, name)(batches, sent, *arguments)

    return fused


def run_arrow(batches: Iterator[Any], sent: Sequence[tuple[Any, ...]], plan: Plan) -> Iterator[pa.Array]:
    """Run a plan behind an ``arrow_udf``."""
    prepare_worker([Parcel(*each) for each in sent])
    tuples = (batch if isinstance(batch, tuple) else (batch,) for batch in batches)
    for outputs in execute(plan, tuples):
        yield pa.StructArray.from_arrays(outputs, names=[f"c{index}" for index in range(len(outputs))])


def run_pandas(
    batches: Iterator[Any],
    sent: Sequence[tuple[Any, ...]],
    plan: Plan,
    inputs: Sequence[DataType],
    outputs: Sequence[DataType],
) -> Iterator[pd.DataFrame]:
    """Run a plan behind a ``pandas_udf``."""
    import pandas as pd

    prepare_worker([Parcel(*each) for each in sent])
    tuples = (batch if isinstance(batch, tuple) else (batch,) for batch in batches)
    for made in execute(plan, (unflatten(batch, inputs) for batch in tuples)):
        flat = [array for column, dtype in zip(made, outputs, strict=True) for array in flat_arrays(column, dtype)]
        yield pd.DataFrame({f"c{index}": series(array) for index, array in enumerate(flat)})


def prepare_worker(parcels: Sequence[Parcel] = ()) -> None:
    """Tell this worker what was sent to it, and the model runtime what Spark gave the task: threads
    (``spark.task.cpus``) and a GPU."""
    from sparktasks.runtime import devices, threads

    receive(parcels)
    context = TaskContext.get()
    if context is not None:
        threads.use(context.cpus())
        gpus = context.resources().get("gpu")
        devices.use_gpu(int(gpus.addresses[0]) if gpus and gpus.addresses[0].isdigit() else None)
