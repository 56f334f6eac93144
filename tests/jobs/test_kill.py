"""A run that is stopped or killed in the middle, or overlaps with others: every row is there once in the end, and
nothing is done twice."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

import sparktasks
from sparktasks import cli
from sparktasks.errors import JobError
from sparktasks.jobs.loading import load_job
from sparktasks.jobs.report import Summary
from sparktasks.jobs.run import run_job
from tests.jobs.processes import (
    ROWS,
    finished_tasks,
    hold,
    ids,
    ids_in,
    ids_run,
    kill_all,
    start,
    wait_for,
    write_slow_job,
)
from tests.jobs.recorder import Recorder

pytestmark = pytest.mark.skipif(
    not Path("/proc/self").exists(),
    reason="the processes to kill are found in /proc, and elsewhere a killed run only by its missing heartbeat",
)


@pytest.fixture(autouse=True)
def _front_door(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparktasks, "Recorder", Recorder, raising=False)
    monkeypatch.setattr(sparktasks, "__all__", [*sparktasks.__all__, "Recorder"])


@pytest.fixture
def begin() -> Iterator[Callable[[Path], subprocess.Popen[str]]]:
    """Start a job in processes of its own; whatever is left of them goes at the end."""
    started: list[subprocess.Popen[str]] = []

    def run(job: Path) -> subprocess.Popen[str]:
        started.append(start(job))
        return started[-1]

    yield run
    for process in started:
        kill_all(process)


def test_killed_job_is_completed_by_running_it_again(
    spark: SparkSession, tmp_path: Path, begin: Callable[[Path], subprocess.Popen[str]]
) -> None:
    job = write_slow_job(tmp_path, cores=2, with_model=True)
    held = hold(tmp_path)
    out, log = tmp_path / "out", tmp_path / "log"
    first = begin(job)
    wait_for(lambda: 14 in ids_run(log) and bool(finished_tasks(out)), first)
    kill_all(first)
    before, rescued = ids(out), ids_in(finished_tasks(out))
    assert before
    assert rescued
    assert len(before) + len(rescued) < len(ids_run(log)) < ROWS
    contents = {path: path.read_bytes() for path in out.glob("part-*.parquet")}
    log.unlink()
    held.unlink()

    summary = run_job(load_job(job), spark)
    assert sorted(ids(out)) == list(range(ROWS))
    assert ids_run(log) == sorted(set(range(ROWS)) - set(before) - set(rescued))
    assert {path: path.read_bytes() for path in contents} == contents
    there = len(before) + len(rescued)
    assert f"  rows              {ROWS - there} ({there} more were there already)" in summary.lines()
    assert not (out / "_temporary").exists()


def test_run_waits_for_the_jvm_of_a_killed_one(
    spark: SparkSession, tmp_path: Path, begin: Callable[[Path], subprocess.Popen[str]]
) -> None:
    """The JVM of a driver that was killed may still commit a part."""
    job = write_slow_job(tmp_path)
    held = hold(tmp_path)
    first = begin(job)
    wait_for(lambda: 14 in ids_run(tmp_path / "log"), first)
    os.kill(first.pid, signal.SIGKILL)
    held.unlink()
    summary = run_job(load_job(job), spark)
    assert sorted(ids(tmp_path / "out")) == list(range(ROWS))
    assert summary.already
    assert summary.notes == ()


def test_sigterm_says_what_is_written_and_gives_the_lock_back(
    spark: SparkSession, tmp_path: Path, begin: Callable[[Path], subprocess.Popen[str]]
) -> None:
    job = write_slow_job(tmp_path)
    held = hold(tmp_path)
    process = begin(job)
    wait_for(lambda: 14 in ids_run(tmp_path / "log"), process)
    with pytest.raises(JobError, match=rf"another run is writing to .*out: job 'job' on .*, process {process.pid}, "):
        run_job(load_job(job), spark)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == cli.TERMINATED
    assert "part 3 of 4 was stopped; 2 parts are written, and running the job again goes on from there" in errors
    assert errors.splitlines()[-1] == "sparktasks: stopped by SIGTERM"
    assert "Traceback" not in errors
    assert not list(tmp_path.glob("_out*"))
    written = ids(tmp_path / "out")
    assert 0 < len(written) < ROWS
    held.unlink()
    assert run_job(load_job(job), spark).already == len(written)
    assert sorted(ids(tmp_path / "out")) == list(range(ROWS))


@pytest.mark.parametrize("runs", [2, 3])
def test_of_runs_at_once_one_writes_and_the_others_are_refused(spark: SparkSession, tmp_path: Path, runs: int) -> None:
    """`python -m tests.jobs.overlap` tries the same with processes, some of which it kills."""
    job = load_job(write_slow_job(tmp_path, seconds=0.02))
    together = threading.Barrier(runs)

    def run(_: int) -> Summary:
        together.wait()
        return run_job(job, spark)

    with ThreadPoolExecutor(runs) as pool:
        futures = [pool.submit(run, number) for number in range(runs)]
    refusals = [future.exception() for future in futures if future.exception()]
    assert len(refusals) == runs - 1
    assert all(isinstance(error, JobError) and "another run is writing to" in str(error) for error in refusals)
    [summary] = [future.result() for future in futures if not future.exception()]
    assert summary.counts.rows == ROWS
    assert sorted(ids(tmp_path / "out")) == ids_run(tmp_path / "log") == list(range(ROWS))
