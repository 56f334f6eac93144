"""The Spark session a job runs in: one that is there already, spark-submit's, or its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from pyspark.errors import AnalysisException
from pyspark.sql import SparkSession

from sparktasks.jobs.progress import say
from sparktasks.jobs.spec import Job
from sparktasks.jobs.stages import records_per_batch

# Set by spark-submit for the Python driver it starts.
_SUBMITTED = "PYSPARK_GATEWAY_PORT"


@contextmanager
def session_of(job: Job) -> Iterator[SparkSession]:
    """Give the running session as it is, spark-submit's with the job's settings added, or a new one that is stopped at the end."""
    active = SparkSession.getActiveSession()
    if active is not None:
        _left_out(job, {name for name, value in _settings(job).items() if active.conf.get(name, None) != value})
        yield active
        return
    # Executors on this machine must find the packages that this driver found.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    session = _submitted(job) if _SUBMITTED in os.environ else _own(job)
    try:
        yield session
    finally:
        session.stop()


def _settings(job: Job) -> dict[str, str]:
    return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in job.spark.config.items()}


def _defaults(job: Job) -> dict[str, str]:
    """Return what a session of the job's own gets where neither the job file nor spark-submit says otherwise.

    An Arrow batch is what a worker takes in at once: few enough rows that none of it is gigabytes, or hours of work.
    """
    rows = min((records_per_batch(section.name) for section in job.stages), default=0)
    return {"spark.sql.execution.arrow.maxRecordsPerBatch": str(rows)} if rows else {}


def _own(job: Job) -> SparkSession:
    builder = SparkSession.builder.appName(job.name)
    if job.spark.remote:
        builder = builder.remote(job.spark.remote)
    elif job.spark.master or "SPARK_REMOTE" not in os.environ:
        builder = builder.master(job.spark.master or "local[*]")
        # Spark's own bar would write over our progress line.
        builder = builder.config("spark.ui.showConsoleProgress", "false")
    for name, value in (_defaults(job) | _settings(job)).items():
        builder = builder.config(name, value)
    return builder.getOrCreate()


def _submitted(job: Job) -> SparkSession:
    """Take spark-submit's session: what was given there wins, other settings are added where a running session takes them."""
    session = SparkSession.builder.getOrCreate()
    given = session.sparkContext.getConf()
    late = set()
    for name, value in (_defaults(job) | _settings(job)).items():
        if not given.contains(name):
            try:
                session.conf.set(name, value)
            except AnalysisException:  # memory, cores and the like are fixed once a session runs
                late.add(name)
    _left_out(job, late)
    return session


def _left_out(job: Job, names: set[str]) -> None:
    if names:
        hint = "give them to spark-submit or to the cluster" if _SUBMITTED in os.environ else "set them there"
        say(f"{job.name}: the session is running already; these settings of the job file were left out, {hint}: {', '.join(sorted(names))}")
