"""Spark actions that Ctrl-C and SIGTERM can stop.

A signal that interrupts a call to the JVM leaves the connection of its thread waiting for the answer: whatever this
thread asks of the JVM next, such as to stop, waits until the call has ended, which may be hours. And a write that goes
on in the JVM may still commit its rows.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from concurrent.futures import Future

from pyspark import InheritableThread
from pyspark.sql import SparkSession

from sparktasks.spark.delivery import is_connect


def interruptible(spark: SparkSession, action: Callable[[], None]) -> None:
    """Run an action in a thread of its own; where this one is interrupted, cancel its jobs and wait for their end."""
    tag = f"sparktasks_{uuid.uuid4().hex}"
    outcome: Future[None] = Future()

    def run() -> None:
        try:
            _add_tag(spark, tag)
            action()
            outcome.set_result(None)
        except BaseException as error:
            outcome.set_exception(error)

    thread = InheritableThread(target=run, session=spark, daemon=True)
    thread.start()
    try:
        outcome.result()
    except (KeyboardInterrupt, SystemExit):
        _cancel(spark, tag)
        thread.join()
        raise


def _add_tag(spark: SparkSession, tag: str) -> None:
    if is_connect(spark):
        spark.addTag(tag)
    else:
        spark.sparkContext.addJobTag(tag)


def _cancel(spark: SparkSession, tag: str) -> None:
    if is_connect(spark):
        spark.interruptTag(tag)
    else:
        spark.sparkContext.cancelJobsWithTag(tag)
