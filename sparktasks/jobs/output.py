"""What is in a resumed job's output: whether it is there, its rows, their ids and errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, DataType, StringType, StructType

from sparktasks.errors import JobError, listed
from sparktasks.jobs.files import Place
from sparktasks.jobs.spec import FILE_FORMATS, Job
from sparktasks.jobs.stages import has_fault
from sparktasks.jobs.storage import write
from sparktasks.spark.annotations import is_annotations
from sparktasks.spark.vectorized import quoted

# Formats whose files say the types of their columns.
_TYPED = ("parquet", "orc", "avro")

# What reading needs that writing has no use for, or takes otherwise. CSV: texts with line breaks are written in quotes
# and span lines, and a row that does not come back as it was written must stop the job, not count as another one.
_READ_OPTIONS: dict[str, dict[str, Any]] = {
    "csv": {"multiLine": True, "mode": "FAILFAST", "columnPruning": False},
    "json": {"multiLine": False, "mode": "FAILFAST"},
}


@dataclass(frozen=True)
class Review:
    """What was counted in an output; ``errors`` is None where its columns do not show them."""

    rows: int
    ids: int
    errors: int | None


@dataclass(frozen=True)
class Output:
    """A job's output; ``schema`` is that of the columns the job writes, ``place`` where this process sees it, if it
    does."""

    job: Job
    spark: SparkSession
    schema: StructType
    place: Place | None

    @property
    def name(self) -> str:
        """The path or the table, for messages."""
        return str(self.job.write.path or self.job.write.table)

    def exists(self) -> bool:
        """Tell whether there is something to read."""
        section = self.job.write
        if section.table:
            return self.spark.catalog.tableExists(section.table)
        if self.place is not None and section.format in FILE_FORMATS:
            return self.place.files.has_data(self.place.path)
        return self._can_be_read()

    def _can_be_read(self) -> bool:
        try:
            self.rows().schema  # noqa: B018 - Spark Connect looks no earlier
        except AnalysisException:
            return False
        return True

    def has_leftovers(self) -> bool:
        """Tell whether a run that was killed may have left finished tasks that the next commit brings in."""
        return self.place is None or self.place.files.exists(self.place.inside("_temporary"))

    def settle(self) -> None:
        """Append nothing: makes the output if it is not there, and commits what a killed run had finished."""
        write(self.spark.createDataFrame([], self.schema), self.job.write, "append")

    def clear(self) -> None:
        """Overwrite the output with nothing, all partitions of it."""
        options = self.job.write.options | {"partitionOverwriteMode": "static"}
        write(self.spark.createDataFrame([], self.schema), replace(self.job.write, options=options), "overwrite")

    def rows(self) -> DataFrame:
        """Read what is there, by the options it was written with."""
        section = self.job.write
        reader = self.spark.read.options(**section.options | _READ_OPTIONS.get(str(section.format), {}))
        if section.table:
            return reader.table(section.table)
        if section.format in FILE_FORMATS:  # files without a schema of their own, or none yet
            reader = reader.schema(self.schema)
        return reader.format(str(section.format)).load(section.path)

    def is_empty(self) -> bool:
        """Tell whether there are no rows."""
        if not self.exists():
            return True
        section = self.job.write
        if section.table or section.format in _TYPED or section.format not in FILE_FORMATS:
            return self.rows().select(F.lit(1)).isEmpty()  # reads no column, and so minds no column's type
        return self.spark.read.text(str(section.path)).isEmpty()

    def check_types(self) -> None:
        """Raise `JobError` where the columns that are there have other names or types than those the job writes."""
        if self.is_empty():
            return
        section = self.job.write
        if section.table or section.format not in FILE_FORMATS:
            there = self.rows().schema
        elif section.format in _TYPED:
            there = self.spark.read.options(**section.options).format(section.format).load(section.path).schema
        else:
            return
        before, now = _types(there), _types(self.schema)
        changed = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
        if changed:
            was = listed(f"{name} {before.get(name, '(no such column)')}" for name in changed)
            becomes = listed(f"{name} {now.get(name, '(no such column)')}" for name in changed)
            raise JobError(
                f"{self.job.name}: {self.name} has other columns than this job writes. There: {was}. This job: "
                f"{becomes}. "
                "Set `resume: redo` to replace what is there, or write to another place"
            )

    def error_test(self, own: Sequence[str]) -> Column | None:
        """Return the condition that a written row has an error; None where no column written shows that.

        Errors show in annotation columns, and in those called ``error`` or ``..._error``, as `Finisher` calls them;
        ``own`` are the input's columns, which are no errors of this job whatever they are called.
        """
        known = {name.lower() for name in own}
        tests = []
        for field in self.schema.fields:
            if is_annotations(field.dataType):
                tests.append(has_fault(quoted(field.name)))
            elif _shows_errors(field.name, field.dataType) and field.name.lower() not in known:
                tests.append(_is_error(field.name, field.dataType))
        return reduce(Column.__or__, tests) if tests else None

    def review(self, own: Sequence[str]) -> Review:
        """Count what is there."""
        test = self.error_test(own)
        counts = [
            F.count(F.lit(1)).alias("rows"),
            F.count_distinct(quoted(str(self.job.id))).alias("ids"),
            F.count(F.when(F.lit(False) if test is None else test, 1)).alias("errors"),
        ]
        row = self.rows().agg(*counts).collect()[0]
        return Review(row["rows"], row["ids"], None if test is None else row["errors"])


def _types(schema: StructType) -> dict[str, str]:
    return {field.name.lower(): field.dataType.simpleString() for field in schema.fields}


def _shows_errors(name: str, kind: DataType) -> bool:
    texts = isinstance(kind, StringType) or (isinstance(kind, ArrayType) and isinstance(kind.elementType, StringType))
    return texts and (name.lower() == "error" or name.lower().endswith("_error"))


def _is_error(name: str, kind: DataType) -> Column:
    if isinstance(kind, ArrayType):
        return F.coalesce(F.exists(quoted(name), lambda error: error.isNotNull()), F.lit(False))
    return F.coalesce(quoted(name) != "", F.lit(False))
