"""How far a job is: a line that rewrites itself on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
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
    tracker = _tracker(spark)
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


def _tracker(spark: SparkSession) -> Any:
    try:
        return spark.sparkContext.statusTracker()
    except Exception:  # Connect, and clusters that shut the SparkContext off, each refuse it in their own way
        return None


def _report(tracker: Any, label: str, done: threading.Event) -> None:
    terminal, started, shown = sys.stderr.isatty(), time.monotonic(), ""
    while not done.wait(TERMINAL_SECONDS if terminal else LOG_SECONDS):
        finished, total = _tasks(tracker)
        line = f"{label}: {finished} of {total} tasks, {time.monotonic() - started:.0f} s"
        if terminal:
            print("\r" + line.ljust(len(shown)), end="", file=sys.stderr, flush=True)
        else:
            say(line)
        shown = line
    if terminal and shown:
        print("\r" + " " * len(shown) + "\r", end="", file=sys.stderr, flush=True)


def _tasks(tracker: Any) -> tuple[int, int]:
    """Return the finished and all tasks of the stages that run now."""
    stages = [tracker.getStageInfo(number) for number in tracker.getActiveStageIds()]
    known = [stage for stage in stages if stage is not None]
    return sum(stage.numCompletedTasks for stage in known), sum(stage.numTasks for stage in known)
