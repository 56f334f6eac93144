"""One run at a time for an output: refused by name while another lives, taken over when it does not."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyspark.sql import SparkSession

from sparktasks.errors import JobError, OutputError
from sparktasks.jobs import lock as locks
from sparktasks.jobs.files import Files, HadoopFiles, LocalFiles, Place, place_of
from sparktasks.jobs.loading import load_job
from sparktasks.jobs.lock import OutputLock, locked
from sparktasks.jobs.owner import Owner, machine, started_at
from sparktasks.jobs.run import run_job
from tests.jobs.making import texts, write_job, write_lines

NO_SPARK: Any = SimpleNamespace(sparkContext=None, _jsparkSession=None)


@pytest.fixture(params=["local", "hadoop"])
def place(request: pytest.FixtureRequest, spark: SparkSession, tmp_path: Path) -> Place:
    """A place on each kind of file system; Hadoop's is the local one behind its own client."""
    if request.param == "local":
        return Place(LocalFiles(), str(tmp_path / "out"))
    path = f"file:{tmp_path}/out"
    return Place(HadoopFiles(spark, path), path)


def lock_file(tmp_path: Path) -> Path:
    return tmp_path / "_out.sparktasks.lock"


def owner(**changes: Any) -> Owner:
    """An owner on another machine."""
    base = Owner("other", "nightly", "far-away", "another machine", 4711, "1", 0, "", "2026-01-01 00:00:00+00:00")
    return dataclasses.replace(base, **changes)


def test_lock_is_a_file_beside_the_output_and_goes_with_the_run(place: Place, tmp_path: Path) -> None:
    lock = OutputLock(place, "job", NO_SPARK)
    lock.take()
    content = json.loads(lock_file(tmp_path).read_text())
    assert (content["pid"], content["host"], content["job"]) == (os.getpid(), socket.gethostname(), "job")
    lock.check()
    with pytest.raises(
        JobError, match=rf"another run is writing to .*out: job 'job' on .*, process {os.getpid()}, since "
    ):
        OutputLock(place, "job", NO_SPARK).take()
    lock.release()
    assert [path for path in tmp_path.iterdir() if path.suffix != ".crc"] == []


def test_lock_of_a_process_that_is_gone_is_taken_over_at_once(place: Place, tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    lock_file(tmp_path).write_text(owner(machine=machine(), pid=ended.pid).to_json())
    began = time.monotonic()
    lock = OutputLock(place, "job", NO_SPARK)
    lock.take()
    assert time.monotonic() - began < 5
    lock.check()
    lock.release()


def test_process_number_that_is_used_again_is_another_process(tmp_path: Path) -> None:
    assert owner(machine=machine(), pid=os.getpid(), started=started_at(os.getpid())).state() == "alive"
    assert owner(machine=machine(), pid=os.getpid(), started="1").state() == "gone"
    jvm = owner(machine=machine(), pid=os.getpid(), started="1", jvm=os.getpid(), jvm_started=started_at(os.getpid()))
    assert jvm.state() == "ending"
    assert owner().state() == "elsewhere"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {
        "STALE_SECONDS": 0.6,
        "ENDING_SECONDS": 0.3,
        "BEAT_SECONDS": 0.1,
        "_LOOK_SECONDS": 0.05,
    }.items():
        monkeypatch.setattr(locks, name, seconds)


@pytest.mark.usefixtures("quick")
def test_lock_from_elsewhere_is_taken_over_only_without_a_heartbeat(place: Place, tmp_path: Path) -> None:
    lock_file(tmp_path).write_text(owner().to_json())
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(0.1):
            place.files.replace(place.beside(lock_file(tmp_path).name), owner(beat=time.monotonic_ns()).to_json())

    beating = threading.Thread(target=beat)
    beating.start()
    with pytest.raises(JobError, match="job 'nightly' on far-away, process 4711, since 2026"):
        OutputLock(place, "job", NO_SPARK).take()
    ended.set()
    beating.join()
    lock = OutputLock(place, "job", NO_SPARK)
    lock.take()
    lock.release()


@pytest.mark.usefixtures("quick")
def test_jvm_that_outlives_its_python_is_waited_for_and_named(tmp_path: Path) -> None:
    mine = {"jvm": os.getpid(), "jvm_started": started_at(os.getpid())}
    lock_file(tmp_path).write_text(owner(machine=machine(), pid=os.getpid(), started="1", **mine).to_json())
    with pytest.raises(JobError, match=rf"Its JVM, process {os.getpid()}, still runs: end it with kill {os.getpid()}"):
        OutputLock(Place(LocalFiles(), str(tmp_path / "out")), "job", NO_SPARK).take()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("text", ["", "{}", "no JSON"])
def test_lock_file_that_says_nothing_is_stale_after_a_while(tmp_path: Path, text: str) -> None:
    lock_file(tmp_path).write_text(text)
    lock = OutputLock(Place(LocalFiles(), str(tmp_path / "out")), "job", NO_SPARK)
    lock.take()
    lock.release()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("quick")
def test_run_that_lost_its_lock_says_so_and_leaves_the_other_one(place: Place, tmp_path: Path) -> None:
    lock = OutputLock(place, "job", NO_SPARK)
    lock.take()
    place.files.replace(place.beside(lock_file(tmp_path).name), owner().to_json())
    time.sleep(0.3)
    with pytest.raises(OutputError, match=r"job 'nightly' on far-away.* has taken over"):
        lock.check()
    lock.release()
    assert json.loads(lock_file(tmp_path).read_text())["token"] == "other"


def _contend(folder: str, ready: Any, answers: Any) -> None:
    lock = OutputLock(Place(LocalFiles(), f"{folder}/out"), "job", NO_SPARK)
    ready.wait()
    try:
        lock.take()
        answers.put(True)
        time.sleep(0.2)
        lock.check()
        lock.release()
    except JobError:
        answers.put(False)


def test_of_many_processes_one_gets_a_stale_lock(tmp_path: Path) -> None:
    spawned = multiprocessing.get_context("fork")
    for number in range(3):
        folder = tmp_path / str(number)
        folder.mkdir()
        ended = subprocess.Popen([sys.executable, "-c", ""])
        ended.wait()
        lock_file(folder).write_text(owner(machine=machine(), pid=ended.pid).to_json())
        ready, answers = spawned.Event(), spawned.Queue()
        contenders = [spawned.Process(target=_contend, args=(str(folder), ready, answers)) for _ in range(6)]
        for contender in contenders:
            contender.start()
        ready.set()
        assert sum(answers.get(timeout=60) for _ in contenders) == 1
        for contender in contenders:
            contender.join()
            assert contender.exitcode == 0


def test_where_no_lock_can_be_kept_the_run_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Files, path: str, text: str) -> bool:
        raise PermissionError(13, "no")

    monkeypatch.setattr(LocalFiles, "create", refuse)
    with locked(Place(LocalFiles(), str(tmp_path / "out")), str(tmp_path / "out"), "job", NO_SPARK) as lock:
        assert lock.note == f"{tmp_path / 'out'} was not locked: no lock can be kept beside it (PermissionError). " + (
            "Let no other run write there at the same time"
        )
    with locked(None, "s3a://bucket/out", "job", NO_SPARK) as lock:
        assert lock.note.startswith("s3a://bucket/out was not locked: this process cannot look there")
    with locked(None, None, "job", NO_SPARK) as lock:
        assert lock.note == ""


@pytest.mark.parametrize("mode", ["append", "overwrite", "error", "ignore", None])
def test_every_mode_that_writes_is_refused_while_another_run_writes(
    spark: SparkSession, tmp_path: Path, mode: str | None
) -> None:
    write_lines(tmp_path / "in" / "a.json", texts(range(3)))
    changes: dict[str, Any] = {"write": {"mode": mode}} if mode else {"id": "id", "resume": True}
    job = load_job(write_job(tmp_path, stages=["DocumentAssembler"], **changes))
    (tmp_path / "link").symlink_to(tmp_path)
    with locked(place_of(spark, f"file:{tmp_path}/link/out"), "out", "first", spark):
        with pytest.raises(JobError, match=r"another run is writing to .*: job 'first' on"):
            run_job(job, spark)
        assert not (tmp_path / "out").exists()
    run_job(job, spark)
    assert spark.read.parquet(str(tmp_path / "out")).count() == 3


@pytest.fixture
def lossy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let something delete a file right after it was written."""
    from sparktasks.jobs import run as running

    original: Callable[..., Any] = running.write

    def write(frame: Any, section: Any, mode: str) -> None:
        original(frame, section, mode)
        files = [path for path in Path(section.path).glob("part-*") if path.stat().st_size]
        files[0].unlink()

    monkeypatch.setattr(running, "write", write)


@pytest.mark.usefixtures("lossy")
@pytest.mark.parametrize("changes", [{}, {"write": {"mode": "append"}}, {"id": "id", "resume": True, "chunks": 2}])
def test_run_whose_rows_are_not_there_is_not_done(spark: SparkSession, tmp_path: Path, changes: dict[str, Any]) -> None:
    write_lines(tmp_path / "in" / "a.json", texts(range(12)))
    job = load_job(write_job(tmp_path, stages=["DocumentAssembler"], **changes))
    with pytest.raises(OutputError, match=r"12 rows were written, but \d+ are in .*out"):
        run_job(job, spark)
    assert not list(tmp_path.glob("_out*"))
