"""Resuming: the input is written in parts, and what an earlier run wrote is left out of the next.

Spark commits a write as a whole, so a killed job leaves nothing of a single big write. A job with ``resume`` therefore
writes ``chunks`` parts, by a hash of the id, each committed on its own, and a later run asks the output which ids it
has.

One trap: the file committers of Hadoop move *every* finished task they find under ``_temporary`` into the output, also
those that a killed run left there, so that the next append would bring in rows it never looked at. Where there are such
leftovers, `Output.settle` therefore appends nothing first: what a killed run had finished is committed then, and counts
as written. Nobody else may be writing meanwhile, which `locked` sees to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import (
    ByteType,
    DataType,
    DateType,
    DecimalType,
    IntegerType,
    LongType,
    ShortType,
    StringType,
    StructType,
)

from sparktasks.errors import ColumnError, JobError, did_you_mean, listed
from sparktasks.jobs.output import Output
from sparktasks.jobs.spec import DEFAULT_CHUNKS, Job
from sparktasks.spark.vectorized import quoted

_ID_TYPES = (ByteType, ShortType, IntegerType, LongType, StringType, DecimalType, DateType)
_ID = "sparktasks_id"
_DONE = "sparktasks_done"
_ROWS = "sparktasks_rows"
_PART = "sparktasks_part"
# What Spark's CSV writer trims, or its line-wise reader does not give back.
_LOST_IN_CSV = r'^$|^\s|\s$|[\r\n"\\]'


@dataclass(frozen=True)
class Plan:
    """What is left to do: the parts that lack rows, how many rows that is, and how many are there already."""

    parts: list[DataFrame]
    todo: int
    already: int
    strays: int


def check_id(job: Job, source: DataFrame, schema: StructType) -> None:
    """Raise `ColumnError` where the id column cannot serve; ``schema`` is that of the columns to write."""
    name = str(job.id)
    _id_type(source, name, f"{job.name}: read")
    if name.lower() not in [column.lower() for column in schema.names]:
        raise ColumnError(
            f"{job.name}: write: the id column {name!r} must be among the columns written, which are "
            f"{listed(schema.names)}"
        )


def _id_type(source: DataFrame, name: str, where: str) -> DataType:
    same_name = [field for field in source.schema.fields if field.name.lower() == name.lower()]
    if len(same_name) != 1:
        problem = "is ambiguous" if same_name else "does not exist"
        raise ColumnError(
            f"{where}: the id column {name!r} {problem}.{did_you_mean(name, source.columns)} The input has: "
            f"{listed(source.columns)}"
        )
    kind = same_name[0].dataType
    if not isinstance(kind, _ID_TYPES):
        raise ColumnError(
            f"{where}: the id column {name!r} is {kind.simpleString()}, but ids are strings or whole numbers, decimals "
            "or dates. Cast it with read: columns, such as CAST(x AS string) AS x"
        )
    return kind


def plan_parts(job: Job, source: DataFrame, output: Output) -> Plan:
    """Find out which rows the output lacks, and cut them into parts."""
    name = str(job.id)
    kind = _id_type(source, name, f"{job.name}: read")
    if output.has_leftovers():
        output.settle()
    written = output.rows() if output.exists() else output.no_rows()
    written_ids = written.select(quoted(name).cast(kind).alias(_ID)).distinct()
    done = written_ids.withColumn(_DONE, F.lit(True))
    chunks = job.chunks or DEFAULT_CHUNKS
    parts: list[DataFrame] = []
    todo, already, strays = 0, 0, 0
    for row in _survey(job, source, done, chunks):
        todo += row["todo"]
        already += row["done"]
        strays += row["strays"]
        if row["todo"]:
            parts.append(_part(source, done, name, chunks, row))
    return Plan(parts, todo, already, strays)


def _chunk(column: Column, chunks: int) -> Column:
    return F.pmod(F.xxhash64(column), F.lit(chunks))


def _survey(job: Job, source: DataFrame, done: DataFrame, chunks: int) -> Sequence[Any]:
    """Count the ids to do and those done of each part, reading nothing but ids.

    `JobError` where the ids do not tell rows apart.
    """
    input_ids = source.select(quoted(str(job.id)).alias(_ID))
    ids = input_ids.groupBy(_ID).agg(F.count(F.lit(1)).alias(_ROWS))
    problem = _problem(ids, job.write.format)
    in_input = F.col(_ROWS).isNotNull()
    in_output = F.col(_DONE).isNotNull()
    part = _chunk(F.col(_ID), chunks).alias(_PART)
    by_part = ids.join(done, _ID, "full_outer").groupBy(part)
    counts = by_part.agg(
        F.count(F.when(~in_output, 1)).alias("todo"),
        F.count(F.when(in_output & in_input, 1)).alias("done"),
        F.count(F.when(~in_input, 1)).alias("strays"),
        F.count(F.when(problem.isNotNull() & in_input, 1)).alias("bad"),
    )
    survey = counts.orderBy(_PART).collect()
    if any(row["bad"] for row in survey):
        bad = ids.select(_ID, _ROWS, problem.alias("problem")).where("problem is not null")
        examples = []
        for row in bad.limit(5).collect():
            examples.append(f"{row[_ID]!r} {row['problem']} ({row[_ROWS]:,} rows)")
        raise JobError(
            f"{job.name}: to resume, each row needs an id of its own in the column {job.id!r}, but "
            f"{'; '.join(examples)}"
        )
    return survey


def _problem(ids: DataFrame, output_format: str | None) -> Column:
    """Say of each distinct id what is wrong with it; null where nothing is."""
    problem = F.when(F.col(_ID).isNull(), "is there")
    problem = problem.when(F.col(_ROWS) > 1, "is there more than once")
    is_text = isinstance(ids.schema[_ID].dataType, StringType)
    if is_text and output_format == "csv":
        is_lost = F.col(_ID).rlike(_LOST_IN_CSV)
        problem = problem.when(is_lost, "would not survive being written as CSV")
    return problem


def _part(source: DataFrame, done: DataFrame, name: str, chunks: int, row: Any) -> DataFrame:
    """Return the rows of one part that are not written; the stages come after, so that nothing runs for the others."""
    part = source.where(_chunk(quoted(name), chunks) == row[_PART])
    if not row["done"] + row["strays"]:
        # Nothing to leave out, and so nothing to join with.
        return part
    done_part = done.where(_chunk(F.col(_ID), chunks) == row[_PART])
    return part.join(done_part, quoted(name) == F.col(_ID), "left_anti")
