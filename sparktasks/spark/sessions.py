"""The Spark session of this process, whichever thread asks."""

from __future__ import annotations

import os

from pyspark.sql import SparkSession

from sparktasks.errors import DeliveryError

# What pyspark itself sets once a process has become a Spark Connect client.
_CONNECT_VARIABLE = "SPARK_CONNECT_MODE_ENABLED"


def current_session() -> SparkSession | None:
    """Return this thread's active session, else the process's own; None where there is no session.

    Spark's notion of an active session belongs to a thread, so a thread of a pool has none although the application
    does.
    """
    active = SparkSession.getActiveSession()
    if active is not None:
        return active
    if _CONNECT_VARIABLE in os.environ:
        return _connect_session()
    return _classic_session()


def need_session(purpose: str) -> SparkSession:
    """Return the process's session; `DeliveryError` where there is none."""
    spark = current_session()
    if spark is None:
        raise DeliveryError(f"{purpose} needs a Spark session to be read or written, and this process has none")
    return spark


def _classic_session() -> SparkSession | None:
    from pyspark import SparkContext

    if SparkContext._active_spark_context is None:
        return None
    # Where a context runs, this never starts another one.
    return SparkSession.builder.getOrCreate()


def _connect_session() -> SparkSession | None:
    from pyspark.sql.connect.session import SparkSession as ConnectSession

    session = getattr(ConnectSession, "_default_session", None)
    if session is None or session.client.is_closed:
        return None
    # pyspark's own readers and writers of pipelines look no further than this thread.
    ConnectSession._set_default_and_active_session(session)
    return session  # type: ignore[no-any-return]
