"""What is in a resumed job's output: whether it is there, its rows, their ids and errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, StringType, StructField, StructType

from sparktasks.errors import JobError, listed
from sparktasks.jobs.files import Place
from sparktasks.jobs.spec import FILE_FORMATS, Job
from sparktasks.jobs.stages import any_of, has_fault
from sparktasks.jobs.storage import write
from sparktasks.spark.types import kind_of_type
from sparktasks.spark.vectorized import quoted

# Where Hadoop's committers keep the finished tasks of a write until its end.
LEFTOVERS = "_temporary"
# Formats whose files say the types of their columns.
_TYPED = ("parquet", "orc", "avro")

# What reading needs that writing has no use for, or takes otherwise. CSV: texts with line breaks are written in quotes
# and span lines, and a row that does not come back as it was written must stop the job, not count as another one.
# Names in lower case, see `_overridden`.
_READ_OPTIONS: dict[str | None, dict[str, Any]] = {
    "csv": {"multiline": True, "mode": "FAILFAST", "columnpruning": False},
    "json": {"multiline": False, "mode": "FAILFAST"},
}


@dataclass(frozen=True)
class Review:
    """What was counted in an output; ``errors`` is None where its columns do not show them."""

    rows: int
    ids: int
    errors: int | None


@dataclass(frozen=True)
class Output:
    """A job's output: ``schema`` is that of the columns the job writes, ``place`` is None where this process cannot
    look."""

    job: Job
    spark: SparkSession
    schema: StructType
    place: Place | None

    @property
    def name(self) -> str:
        """The path or the table, for messages."""
        return str(self.job.write.place)

    @property
    def file_format(self) -> str | None:
        """The format of plain files; None for tables, and for formats that keep more than files, such as delta."""
        section = self.job.write
        if section.table or section.format not in FILE_FORMATS:
            return None
        return section.format

    def exists(self) -> bool:
        """Tell whether there is something to read."""
        table = self.job.write.table
        if table:
            return self.spark.catalog.tableExists(table)
        if self.place is not None and self.file_format:
            return self.place.has_data()
        try:
            self.rows().schema  # noqa: B018 - Spark Connect looks no earlier
        except AnalysisException:
            return False
        return True

    def has_leftovers(self) -> bool:
        """Tell whether a run that was killed may have left finished tasks that the next commit brings in."""
        if self.place is None:
            return True
        return self.place.files.exists(self.place.inside(LEFTOVERS))

    def settle(self) -> None:
        """Append nothing: makes the output if it is not there, and commits what a killed run had finished."""
        write(self.no_rows(), self.job.write, "append")

    def clear(self) -> None:
        """Overwrite the output with nothing, all partitions of it."""
        options = _overridden(self.job.write.options, {"partitionoverwritemode": "static"})
        section = replace(self.job.write, options=options)
        write(self.no_rows(), section, "overwrite")

    def no_rows(self) -> DataFrame:
        """Return an empty frame of the columns that the job writes."""
        return self.spark.createDataFrame([], self.schema)

    def rows(self) -> DataFrame:
        """Read what is there as the columns that the job writes."""
        # CSV and JSON files do not say their columns, and an output without files has none.
        schema = self.schema if self.file_format else None
        return self._read(schema)

    def _read(self, schema: StructType | None = None) -> DataFrame:
        """Read by the options that the rows were written with."""
        section = self.job.write
        options = _overridden(section.options, _READ_OPTIONS.get(section.format, {}))
        reader = self.spark.read.options(**options)
        if section.table:
            return reader.table(section.table)
        if schema is not None:
            reader = reader.schema(schema)
        reader = reader.format(str(section.format))
        return reader.load(section.path)

    def is_empty(self) -> bool:
        """Tell whether there are no rows."""
        if not self.exists():
            return True
        if self.file_format in (None, *_TYPED):
            no_columns = self.rows().select(F.lit(1))  # reads no column, and so minds no column's type
            return no_columns.isEmpty()
        return self.spark.read.text(str(self.job.write.path)).isEmpty()

    def check_types(self) -> None:
        """Raise `JobError` where the columns that are there have other names or types than those the job writes."""
        has_types = self.file_format in (None, *_TYPED)
        if not has_types or self.is_empty():
            return
        before = _types(self._read().schema)
        now = _types(self.schema)
        changed = sorted({name for name, _ in before.items() ^ now.items()})
        if not changed:
            return
        old_columns, new_columns = [], []
        for name in changed:
            old_type = before.get(name, "(no such column)")
            new_type = now.get(name, "(no such column)")
            old_columns.append(f"{name} {old_type}")
            new_columns.append(f"{name} {new_type}")
        raise JobError(
            f"{self.job.name}: {self.name} has other columns than this job writes. There: {listed(old_columns)}. This "
            f"job: {listed(new_columns)}. Set `resume: redo` to replace what is there, or write to another place"
        )

    def error_tests(self, input_columns: Sequence[str]) -> list[Column]:
        """Return conditions, of which a written row with an error meets one; none where no column shows errors.

        Errors show in annotation columns, and in those called ``error`` or ``..._error``, as `Finisher` calls them; a
        column of the input is no error of this job, whatever it is called.
        """
        inputs = set(map(str.lower, input_columns))
        tests = []
        for field in self.schema.fields:
            name = field.name.lower()
            last_word = name.split("_")[-1]
            kind = kind_of_type(field.dataType)
            if kind is not None:
                tests.append(has_fault(quoted(field.name), kind))
            elif last_word == "error" and name not in inputs:
                tests.extend(_error_in_text(field))
        return tests

    def review(self, input_columns: Sequence[str]) -> Review:
        """Count what is there."""
        tests = self.error_tests(input_columns)
        id_column = quoted(str(self.job.id))
        counts = self.rows().agg(
            F.count(F.lit(1)).alias("rows"),
            F.count_distinct(id_column).alias("ids"),
            F.count(F.when(any_of(tests), 1)).alias("errors"),
        )
        row = counts.collect()[0]
        errors = row["errors"] if tests else None
        return Review(row["rows"], row["ids"], errors)


def _overridden(options: dict[str, Any], forced: dict[str, Any]) -> dict[str, Any]:
    """Return options with ``forced`` ones, named in lower case, in the place of those that mean the same to Spark."""
    # Of two spellings of a name either may win.
    kept = {name: value for name, value in options.items() if name.lower() not in forced}
    return kept | forced


def _types(schema: StructType) -> dict[str, str]:
    return {field.name.lower(): field.dataType.simpleString() for field in schema.fields}


def _error_in_text(field: StructField) -> list[Column]:
    """Return the condition that a column of strings, or of arrays of them, holds an error; none for other types."""
    column = quoted(field.name)
    kind = field.dataType
    if isinstance(kind, StringType):
        has_error = column != ""
    elif isinstance(kind, ArrayType) and isinstance(kind.elementType, StringType):
        has_error = F.exists(column, lambda error: error.isNotNull())
    else:
        return []
    return [F.coalesce(has_error, F.lit(False))]
