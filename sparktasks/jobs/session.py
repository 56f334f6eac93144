"""The Spark session a job runs in: one that is there already, spark-submit's, or its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pyspark.errors import AnalysisException, PySparkRuntimeError
from pyspark.sql import SparkSession

from sparktasks.errors import JobError
from sparktasks.jobs.progress import say
from sparktasks.jobs.spec import Job
from sparktasks.jobs.stages import records_per_batch
from sparktasks.spark.sessions import current_session

# Set by spark-submit for the Python driver it starts.
_SUBMITTED = "PYSPARK_GATEWAY_PORT"
_NO_JAVA = (
    "Spark needs Java, 17 or newer, and none runs here. Install one (Debian and Ubuntu: apt-get install "
    "openjdk-17-jre-headless; macOS: brew install openjdk@17), and see that java is on the PATH or JAVA_HOME names its "
    "folder"
)


@contextmanager
def session_of(job: Job) -> Iterator[SparkSession]:
    """Give the process's session as it is, spark-submit's with the job's settings, or a new one, stopped at the end.

    Whichever thread asks: a session that was there before belongs to somebody else.
    """
    running = current_session()
    if running is not None:
        _warn_of_settings_left_out(job, _other_settings(job, running))
        yield running
        return
    # Executors on this machine must find the packages that this driver found.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    session = _submitted_session(job) if _SUBMITTED in os.environ else _own_session(job)
    try:
        yield session
    finally:
        with suppress(Exception):  # a JVM that has ended already, as Ctrl-C ends it, needs no stop
            session.stop()


def _settings(job: Job) -> dict[str, str]:
    """Return the job file's settings as Spark writes them: YAML's True is Spark's true."""
    spellings = {"True": "true", "False": "false"}
    settings = {}
    for name, value in job.spark.config.items():
        text = str(value)
        settings[name] = spellings.get(text, text)
    return settings


def _defaults(job: Job) -> dict[str, str]:
    """Return what a session of the job's own gets where neither the job file nor spark-submit says otherwise.

    An Arrow batch is what a worker takes in at once: few enough rows that none of it is gigabytes, or hours of work.
    """
    if not job.stages:
        return {}
    rows = min(map(records_per_batch, job.stages))
    return {"spark.sql.execution.arrow.maxRecordsPerBatch": str(rows)}


def _other_settings(job: Job, running: SparkSession) -> set[str]:
    """Return the names of the job file's settings that a running session does not have."""
    others = set()
    for name, value in _settings(job).items():
        # Spark reads true, false and the names of modes in any case.
        current = str(running.conf.get(name, None))
        if current.lower() != value.lower():
            others.add(name)
    return others


def _own_session(job: Job) -> SparkSession:
    builder = SparkSession.builder.appName(job.name)
    if job.spark.remote:
        builder = builder.remote(job.spark.remote)
    elif job.spark.master or "SPARK_REMOTE" not in os.environ:
        builder = builder.master(job.spark.master or "local[*]")
        # Spark's own bar would write over our progress line.
        builder = builder.config("spark.ui.showConsoleProgress", "false")
    settings = _defaults(job) | _settings(job)
    for name, value in settings.items():
        builder = builder.config(name, value)
    try:
        return builder.getOrCreate()
    except PySparkRuntimeError as error:  # the JVM did not start
        if _java_runs():
            raise
        raise JobError(f"{job.name}: {_NO_JAVA}") from error


def _java_runs() -> bool:
    home = os.environ.get("JAVA_HOME")
    command = str(Path(home, "bin", "java")) if home else "java"
    try:
        subprocess.run([command, "-version"], capture_output=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def _submitted_session(job: Job) -> SparkSession:
    """Return spark-submit's session: what it was submitted with wins, other settings of the job file are added."""
    session = SparkSession.builder.getOrCreate()
    submitted = session.sparkContext.getConf()
    fixed = set()
    settings = _defaults(job) | _settings(job)
    for name, value in settings.items():
        if submitted.contains(name):
            continue
        try:
            session.conf.set(name, value)
        except AnalysisException:  # memory, cores and the like are fixed once a session runs
            fixed.add(name)
    _warn_of_settings_left_out(job, fixed)
    return session


def _warn_of_settings_left_out(job: Job, names: set[str]) -> None:
    if not names:
        return
    hint = "give them to spark-submit or to the cluster" if _SUBMITTED in os.environ else "set them there"
    say(
        f"{job.name}: the session is running already; these settings of the job file were left out, {hint}: "
        f"{', '.join(sorted(names))}"
    )
