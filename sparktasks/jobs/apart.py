"""Keeping a job's output away from what the job reads: an overwrite deletes the output's folder before it reads
anything."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import unquote, urlparse

from pyspark.sql import DataFrame, SparkSession

from sparktasks.errors import JobError
from sparktasks.jobs.files import place_of
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
            return _location_in(spark.sql(f"DESCRIBE TABLE EXTENDED {name}").collect())
        database, _, table = name.rpartition(".")
        rows = spark.sql(f"DESCRIBE DATABASE {database or spark.catalog.currentDatabase()}").collect()
        folder = next((row["info_value"] for row in rows if row["info_name"] == "Location"), None)
    except Exception:  # views, and catalogs that keep no folders, refuse each in their own way
        return None
    return f"{folder.rstrip('/')}/{table.strip('`').lower()}" if folder else None


def _location_in(rows: Sequence[Any]) -> str | None:
    """Find the location in a table's description, below its columns, of which one may have that name."""
    names = [row["col_name"] for row in rows]
    start = names.index("# Detailed Table Information")
    return next((row["data_type"] for row in rows[start:] if row["col_name"] == "Location"), None)


def check_apart(job: Job, spark: SparkSession, source: DataFrame, models: Sequence[Model]) -> None:
    """Raise `JobError` where writing the output would destroy what the job reads, or feed it back."""
    location = output_location(job, spark)
    if location is None:
        return
    output = _whole(spark, location)
    deletes = job.write.mode == "overwrite" or job.resume == "redo"
    for name, place in _folders_read(job, spark):
        relation = _relation(output, _whole(spark, place))
        if relation and (deletes or relation == "is"):
            raise JobError(_refusal(job, location, relation, name, deletes))
    if not deletes:
        return
    for name, place in _also_needed(job, models):
        if _relation(output, _whole(spark, place)) in ("is", "holds"):
            raise JobError(_refusal(job, location, "holds", name, deletes))
    for path in _files_read(source):
        if _relation(output, path) in ("is", "holds"):
            raise JobError(_refusal(job, location, "holds", f"the input's file {path}", deletes))


def _refusal(job: Job, location: str, relation: str, name: str, deletes: bool) -> str:
    how = "resume: redo" if job.resume else "mode: overwrite"
    why = f"with {how} that would be deleted" if deletes else "the job would read its own rows the next time"
    return f"{job.name}: the output {location} {relation} {name}, and {why}. Nothing was run; write to another place"


def _folders_read(job: Job, spark: SparkSession) -> Iterator[tuple[str, str]]:
    """Return what the job file names as input; of a pattern, the folder above its first wildcard is looked at file
    by file."""
    for path in job.read.path or ():
        if not _PATTERN.search(path):
            yield f"the input {path}", path
    if job.read.table and (folder := table_location(spark, job.read.table)):
        yield f"the table {job.read.table}", folder


def _also_needed(job: Job, models: Sequence[Model]) -> Iterator[tuple[str, str]]:
    if job.pipeline:
        yield f"the pipeline {job.pipeline}", job.pipeline
    for model in models:
        # Models lie on this machine, whatever file system a path without a scheme means to Spark.
        yield f"the model {model.name}", f"file:{model.bundle.folder}"


def _files_read(source: DataFrame) -> Iterator[str]:
    """Return the full paths of the files that a frame reads, links resolved; wildcards and tables become files here."""
    try:
        uris = source.inputFiles()
    except Exception:  # a source without files
        return
    folders: dict[str, str] = {}
    for uri in uris:
        parsed = urlparse(uri)
        path = unquote(parsed.path)
        if parsed.scheme not in ("", "file"):
            yield _S3.sub("s3://", f"{parsed.scheme}://{parsed.netloc}{path}")
            continue
        folder, name = os.path.split(path)
        if folder not in folders:
            folders[folder] = os.path.realpath(folder)
        resolved = os.path.join(folders[folder], name)
        yield os.path.realpath(resolved) if os.path.islink(resolved) else resolved


def _whole(spark: SparkSession, location: str) -> str:
    """Return a location as one full path, so that two spellings of a folder are equal."""
    place = place_of(spark, location)
    return _S3.sub("s3://", place.path if place else location).rstrip("/") or "/"


def _relation(output: str, other: str) -> str:
    """Say how the output stands to another path: ``is``, ``holds``, ``lies in``, or nothing."""
    if output == other:
        return "is"
    if other.startswith(f"{output.rstrip('/')}/"):
        return "holds"
    return "lies in" if output.startswith(f"{other.rstrip('/')}/") else ""
