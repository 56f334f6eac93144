"""The progress line: one that rewrites itself on a terminal, whole lines in a log, nothing without a tracker."""

from __future__ import annotations

import io
import sys
import time
from types import SimpleNamespace
from typing import Any

import pytest
from pyspark.sql import SparkSession

from sparktasks.jobs import progress


class Stream(io.StringIO):
    """A stderr that says whether it is a terminal."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


class Tracker:
    """Two stages run, and a third is gone between being listed and being asked."""

    def getActiveStageIds(self) -> list[int]:
        return [1, 2, 3]

    def getStageInfo(self, number: int) -> Any:
        return None if number == 3 else SimpleNamespace(numCompletedTasks=number, numTasks=10)


def watched(monkeypatch: pytest.MonkeyPatch, terminal: bool, spark: Any) -> str:
    stream = Stream(terminal)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(progress, "TERMINAL_SECONDS", 0.02)
    monkeypatch.setattr(progress, "LOG_SECONDS", 0.02)
    with progress.progress(spark, "job: part 1 of 2"):
        deadline = time.monotonic() + 10
        while stream.getvalue().count("tasks") < 2 and hasattr(spark, "sparkContext") and time.monotonic() < deadline:
            time.sleep(0.01)
    return stream.getvalue()


SPARK = SimpleNamespace(sparkContext=SimpleNamespace(statusTracker=Tracker))
LINE = "job: part 1 of 2: 3 of 20 tasks, 0 s"


def test_progress_rewrites_its_line_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    output = watched(monkeypatch, True, SPARK)
    assert "\n" not in output
    assert output.startswith(f"\r{LINE}\r{LINE}")
    assert output.endswith("\r" + " " * len(LINE) + "\r")


def test_progress_writes_lines_into_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    output = watched(monkeypatch, False, SPARK)
    assert "\r" not in output
    assert set(output.splitlines()) == {LINE}


def test_progress_is_silent_without_a_tracker(monkeypatch: pytest.MonkeyPatch) -> None:
    assert watched(monkeypatch, False, SimpleNamespace()) == ""


def test_progress_reads_the_tasks_of_a_running_session(spark: SparkSession) -> None:
    finished, total = progress._tasks(spark.sparkContext.statusTracker())
    assert 0 <= finished <= total
