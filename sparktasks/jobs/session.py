"""The Spark session a job runs in: one that is there already, spark-submit's, or its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pyspark.errors import AnalysisException
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
    "openjdk-17-jre-headless; "
    "macOS: brew install openjdk@17), and see that java is on the PATH or JAVA_HOME names its folder"
)


@contextmanager
def session_of(job: Job) -> Iterator[SparkSession]:
    """Give the process's session as it is, spark-submit's with the job's settings, or a new one, stopped at the end.

    Whichever thread asks: a session that was there before belongs to somebody else.
    """
    running = current_session()
    if running is not None:
        _left_out(job, {name for name, value in _settings(job).items() if running.conf.get(name, None) != value})
        yield running
        return
    # Executors on this machine must find the packages that this driver found.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    session = _submitted(job) if _SUBMITTED in os.environ else _own(job)
    try:
        yield session
    finally:
        with suppress(Exception):  # a JVM that has ended already, as Ctrl-C ends it, needs no stop
            session.stop()


def _settings(job: Job) -> dict[str, str]:
    return {
        name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in job.spark.config.items()
    }


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
    try:
        return builder.getOrCreate()
    except Exception as error:
        java = _java_version()
        if job.spark.remote or java is not None:
            raise
        raise JobError(f"{job.name}: {_NO_JAVA}") from error


def _java_version() -> str | None:
    """Return what Java says of itself; None where there is none that runs."""
    home = os.environ.get("JAVA_HOME")
    command = str(Path(home, "bin", "java")) if home else shutil.which("java")
    try:
        done = subprocess.run([command or "java", "-version"], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return (done.stderr or done.stdout).strip()


def _submitted(job: Job) -> SparkSession:
    """Take spark-submit's session: what was given there wins, other settings are added where a running session takes
    them."""
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
        say(
            f"{job.name}: the session is running already; these settings of the job file were left out, "
            f"{hint}: {', '.join(sorted(names))}"
        )
