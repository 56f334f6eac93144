"""Keeping a job's output away from what the job reads.

An overwrite deletes the output's folder before it reads anything.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from pyspark.sql import DataFrame, SparkSession

from sparktasks.errors import JobError
from sparktasks.jobs.files import path_of_uri, place_of
from sparktasks.jobs.spec import Job
from sparktasks.jobs.stages import Model

_PATTERN = re.compile(r"[*?\[{]")
_S3 = re.compile(r"^s3[an]?://")


def output_location(job: Job, spark: SparkSession) -> str | None:
    """Return where a job's files go; None where it writes none, or its catalog does not say."""
    if job.write.table:
        return table_location(spark, job.write.table)
    return job.write.path


def table_location(spark: SparkSession, name: str) -> str | None:
    """Return the folder of a table, or the one it will have in its database; None where the catalog does not say."""
    try:
        if spark.catalog.tableExists(name):
            description = spark.sql(f"DESCRIBE TABLE EXTENDED {name}").collect()
            titles = [row["col_name"] for row in description]
            # A column, too, may be called Location, but the columns come first.
            details = titles.index("# Detailed Table Information")
            row = description[titles.index("Location", details)]
            return str(row["data_type"])
        database, _, table = name.rpartition(".")
        database = database or spark.catalog.currentDatabase()
        description = spark.sql(f"DESCRIBE DATABASE {database}").collect()
        titles = [row["info_name"] for row in description]
        folder = description[titles.index("Location")]["info_value"]
    except Exception:  # views, and catalogs that keep no folders, refuse each in their own way
        return None
    table_folder = table.strip("`").lower()
    return f"{folder.rstrip('/')}/{table_folder}" if folder else None


def check_apart(
    job: Job,
    spark: SparkSession,
    source: DataFrame,
    models: Sequence[Model],
) -> None:
    """Raise `JobError` where writing the output would destroy what the job reads, or feed it back."""
    location = output_location(job, spark)
    if location is None:
        return
    forbidden = {"is"}
    consequence = "the job would read its own rows the next time"
    places = _folders_read(job, spark)
    if job.write.mode == "overwrite" or job.resume == "redo":
        forbidden = {"is", "holds", "lies in"}
        setting = "resume: redo" if job.resume else "mode: overwrite"
        consequence = f"with {setting} that would be deleted"
        places = itertools.chain(places, _also_needed(job, spark, source, models))
    output = _full_path(spark, location)
    for name, path in places:
        relation = _relation(output, path)
        if relation in forbidden:
            raise JobError(
                f"{job.name}: the output {location} {relation} {name}, and {consequence}. Nothing was run; write to "
                "another place"
            )


def _folders_read(job: Job, spark: SparkSession) -> Iterator[tuple[str, str]]:
    """Return what the job file names as input, each with its full path."""
    # The folder above a pattern's first wildcard is no input as a whole; `_also_needed` looks at its files.
    paths = itertools.filterfalse(_PATTERN.search, job.read.path or [])
    for path in paths:
        yield f"the input {path}", _full_path(spark, path)
    if job.read.table:
        folder = table_location(spark, job.read.table)
        if folder:
            yield f"the table {job.read.table}", _full_path(spark, folder)


def _also_needed(
    job: Job,
    spark: SparkSession,
    source: DataFrame,
    models: Sequence[Model],
) -> Iterator[tuple[str, str]]:
    """Return the pipeline, the models and the single files that the job reads, each with its full path.

    Of a folder it is the path of what is in it: an output that lies in the folder, beside that, does no harm.
    """
    if job.pipeline:
        folder = _full_path(spark, job.pipeline)
        yield f"the pipeline {job.pipeline}", f"{folder}/*"
    for model in models:
        # Models lie on this machine, whatever file system a path without a scheme means to Spark.
        folder = _full_path(spark, f"file:{model.bundle.folder}")
        yield f"the model {model.name}", f"{folder}/*"
    try:
        uris = source.inputFiles()
    except Exception:  # a source without files
        return
    for uri in uris:
        path = _S3.sub("s3://", path_of_uri(uri))
        yield f"the input's file {path}", path


def _full_path(spark: SparkSession, location: str) -> str:
    """Return a location as one full path, so that two spellings of a folder are equal."""
    place = place_of(spark, location)
    path = place.path if place else location
    return _S3.sub("s3://", path)


def _relation(output: str, other: str) -> str:
    """Say how the output stands to another path: ``is``, ``holds``, ``lies in``, or nothing."""
    output_path, other_path = PurePosixPath(output), PurePosixPath(other)
    if output_path == other_path:
        return "is"
    if output_path in other_path.parents:
        return "holds"
    if other_path in output_path.parents:
        return "lies in"
    return ""
