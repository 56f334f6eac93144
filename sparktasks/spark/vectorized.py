"""The two UDF adapters: the same plan behind an ``arrow_udf`` (Spark >= 4.1) or a ``pandas_udf`` (older, or on
request).

Both are iterator UDFs under a generator. The Arrow one returns whole columns. The pandas one would crawl on nested
structs, so Catalyst takes annotation columns apart into flat arrays on the way in and puts them together on the way
out.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import pyarrow as pa
import pyspark
from pyspark.cloudpickle import dumps
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import DataType, StructField, StructType

from sparktasks.errors import ParamError
from sparktasks.kernels.parcels import Parcel
from sparktasks.kernels.plan import Plan
from sparktasks.spark.flat import assembled, flat_columns, flat_types
from sparktasks.spark.types import arrow_type

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
    asked = str(df.sparkSession.conf.get(ADAPTER_SETTING, "auto")).strip().lower()
    if asked not in ("auto", *_ADAPTERS):
        raise ParamError(f"{ADAPTER_SETTING}={asked!r} is not allowed: it takes 'auto', 'arrow' or 'pandas'")
    newest = "arrow" if _SPARK >= (4, 1) else "pandas"
    if asked == "arrow" and newest == "pandas":
        raise ParamError(f"{ADAPTER_SETTING}='arrow' needs Spark 4.1 or newer; this is {pyspark.__version__}")
    return newest if asked == "auto" else asked


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
    raw, names = _generated(base, udf(*[quoted(name) for name, _ in inputs]), len(outputs))
    return raw, names, [F.col(name) for name in names]


def _by_pandas(
    base: DataFrame,
    plan: Plan,
    parcels: Sequence[Parcel],
    inputs: Sequence[tuple[str, DataType]],
    outputs: Sequence[DataType],
) -> Fused:
    from pyspark.sql.functions import pandas_udf  # type: ignore[attr-defined]

    arguments: list[Column] = []
    for name, dtype in inputs:
        arguments.extend(flat_columns(quoted(name), dtype))
    types: list[DataType] = []
    for dtype in outputs:
        types.extend(flat_types(dtype))
    function = _pandas_function(plan, parcels, [arrow_type(dtype) for _, dtype in inputs])
    raw, names = _generated(base, pandas_udf(function, _positional(types))(*arguments), len(types))
    flat = iter(names)
    columns = []
    for dtype in outputs:
        parts = islice(flat, len(flat_types(dtype)))
        columns.append(assembled([F.col(name) for name in parts], dtype))
    return raw, names, columns


_ADAPTERS: dict[str, Callable[..., Fused]] = {"arrow": _by_arrow, "pandas": _by_pandas}


def _positional(types: Sequence[DataType]) -> StructType:
    return StructType([StructField(f"c{index}", dtype) for index, dtype in enumerate(types)])


def _generated(base: DataFrame, struct: Column, width: int) -> tuple[DataFrame, list[str]]:
    # A mark of its own: a frame may run several plans, and the user's columns may have any name.
    mark = uuid.uuid4().hex[:12]
    names = [f"sparktasks_{mark}_{index}" for index in range(width)]
    return base.select("*", F.inline(F.array(struct)).alias(*names)), names


def _arrow_function(plan: Plan, parcels: Sequence[Parcel]) -> Callable[..., Any]:
    fused = _function("run_arrow", parcels, plan)
    # Spark tells the kind of a UDF by its annotations, as objects rather than strings.
    fused.__annotations__ = {"batches": Iterator[tuple[pa.Array, ...]], "return": Iterator[pa.Array]}
    return fused


def _pandas_function(plan: Plan, parcels: Sequence[Parcel], inputs: Sequence[pa.DataType]) -> Callable[..., Any]:
    import pandas as pd

    fused = _function("run_pandas", parcels, plan, inputs)
    fused.__annotations__ = {"batches": Iterator[tuple[pd.Series, ...]], "return": Iterator[pd.DataFrame]}
    return fused


def _function(name: str, parcels: Sequence[Parcel], *arguments: Any) -> Callable[..., Any]:
    """Make what Spark pickles: a function that runs ``sparktasks.kernels.worker.NAME`` on the batches.

    It names nothing of ours until it runs, so that an executor that lacks us can say so. Broadcasts are found by the
    pickling of the function itself, and so stay outside of what is pickled here.
    """
    pickled: bytes = dumps(arguments)  # type: ignore[no-untyped-call]
    sent = [(parcel.hash, parcel.way, parcel.files, parcel.parts) for parcel in parcels]

    def fused(batches: Iterator[Any]) -> Iterator[Any]:
        import pickle
        import socket
        import sys

        try:
            from sparktasks.kernels import worker
            from sparktasks.spark.task import prepare_worker

            unpickled = pickle.loads(pickled)
        except ImportError as error:
            raise ImportError(
                f"the Python of the executor on {socket.gethostname()} ({sys.executable}) lacks a package: {error}. "
                "Install sparktasks there, or send an environment with the job: spark-submit --archives ENV.tar.gz#env"
            ) from error
        prepare_worker(sent)
        yield from getattr(worker, name)(batches, *unpickled)

    return fused
