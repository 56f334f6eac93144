"""How far a job is: a line that rewrites itself on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from pyspark.sql import SparkSession

TERMINAL_SECONDS = 0.5
LOG_SECONDS = 30.0


def say(line: str) -> None:
    """Write a line to stderr; stdout is kept for the summary."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def progress(spark: SparkSession, label: str) -> Iterator[None]:
    """Report the running stages' tasks until the block ends; Spark Connect has no tracker, so there it says nothing."""
    tracker = None
    # Connect, and clusters that shut the SparkContext off, each refuse it in their own way.
    with suppress(Exception):
        tracker = spark.sparkContext.statusTracker()
    if tracker is None:
        yield
        return
    done = threading.Event()
    thread = threading.Thread(target=_report, args=(tracker, label, done), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _report(tracker: Any, label: str, done: threading.Event) -> None:
    is_terminal = sys.stderr.isatty()
    interval = TERMINAL_SECONDS if is_terminal else LOG_SECONDS
    started = time.monotonic()
    width = 0
    while not done.wait(interval):
        finished, total = _tasks(tracker)
        seconds = time.monotonic() - started
        line = f"{label}: {finished} of {total} tasks, {seconds:.0f} s"
        if is_terminal:
            # Blanks cover what is left of a longer line.
            _rewrite(line.ljust(width))
            width = len(line)
        else:
            say(line)
    if width:
        _rewrite(" " * width + "\r")


def _rewrite(line: str) -> None:
    print("\r" + line, end="", file=sys.stderr, flush=True)


def _tasks(tracker: Any) -> tuple[int, int]:
    """Return the finished and all tasks of the stages that run now."""
    finished, total = 0, 0
    for number in tracker.getActiveStageIds():
        stage = tracker.getStageInfo(number)
        # A stage may end between being listed and being asked.
        if stage is not None:
            finished += stage.numCompletedTasks
            total += stage.numTasks
    return finished, total
