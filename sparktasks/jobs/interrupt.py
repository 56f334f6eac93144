"""Spark actions that Ctrl-C and SIGTERM can stop.

A signal that interrupts a call to the JVM leaves the connection of its thread waiting for the answer: whatever this
thread asks of the JVM next, such as to stop, waits until the call has ended, which may be hours. And a write that goes
on in the JVM may still commit its rows.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from inspect import signature

from pyspark import InheritableThread
from pyspark.sql import SparkSession

from sparktasks.spark.delivery import is_connect


def interruptible(spark: SparkSession, action: Callable[[], None]) -> None:
    """Run an action in a thread of its own; where this one is interrupted, cancel its jobs and wait for their end."""
    tag = f"sparktasks_{uuid.uuid4().hex}"
    add_tag: Callable[[str], object]
    cancel: Callable[[str], object]
    if is_connect(spark):
        add_tag, cancel = spark.addTag, spark.interruptTag
    else:
        context = spark.sparkContext
        add_tag, cancel = context.addJobTag, context.cancelJobsWithTag
    outcome: Future[None] = Future()

    def run() -> None:
        try:
            add_tag(tag)
            action()
            outcome.set_result(None)
        except BaseException as error:
            outcome.set_exception(error)

    # Of the kind that inherits the scheduler pool and the like from this one; Spark 3.5 finds the session by itself.
    takes_session = "session" in signature(InheritableThread.__init__).parameters
    more = {"session": spark} if takes_session else {}
    thread = InheritableThread(target=run, daemon=True, **more)
    thread.start()
    try:
        outcome.result()
    except (KeyboardInterrupt, SystemExit):
        with suppress(Exception):  # a JVM that has ended already has nothing to cancel
            cancel(tag)
        thread.join()
        raise
