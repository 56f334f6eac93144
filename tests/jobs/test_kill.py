"""A driver killed with SIGKILL in the middle of a run: the next run completes the output without doing anything
twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.jobs.making import BUNDLE, texts, write_job, write_lines
from tests.jobs.recorder import recorded

ROWS = 60
SPARK: dict[str, Any] = {
    "master": "local[2]",
    "config": {
        "spark.ui.enabled": False,
        "spark.log.level": "ERROR",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.sql.shuffle.partitions": 2,
    },
}


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A job over two files, of which the second is slow: the first file's task ends long before its part does."""
    quick, slow = texts(range(ROWS // 2)), texts(range(ROWS // 2, ROWS))
    write_lines(tmp_path / "in" / "a.json", quick)
    write_lines(tmp_path / "in" / "b.json", [row | {"text": f"{row['text']} slowly"} for row in slow])
    return write_job(
        tmp_path,
        spark=SPARK,
        stages=[
            {"DocumentAssembler": {"inputCol": "text"}},
            {"Recorder": {"log": str(tmp_path / "log"), "slow": "slowly", "seconds": 0.3}},
            {"TextClassifier": {"pretrained": str(BUNDLE), "inputCols": ["recorded"], "outputCol": "intent"}},
            {"Finisher": {"inputCols": ["intent"]}},
        ],
        id="id",
        resume=True,
        chunks=4,
    )


@pytest.fixture
def start(job: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Start the job in a session of processes of its own; whatever is left of it goes at the end."""
    started: list[subprocess.Popen[str]] = []

    def begin() -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.jobs.recorder", "run", str(job)]
        started.append(
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
        )
        return started[-1]

    yield begin
    for process in started:
        kill(process)


def kill(process: subprocess.Popen[str]) -> None:
    """SIGKILL for the driver, its JVM and its Python workers (Spark's worker daemon leads a process group of its
    own)."""
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.getsid(int(entry.name)) == process.pid:
                os.kill(int(entry.name), signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.communicate()


def ids_in(files: Iterator[Path]) -> list[int]:
    return [number for file in files for number in pq.read_table(file, columns=["id"]).column("id").to_pylist()]


def committed(out: Path) -> list[int]:
    return ids_in(out.glob("part-*.parquet"))


def finished(out: Path) -> list[int]:
    """Return the ids in finished tasks of a part that is not committed."""
    return ids_in(out.glob("_temporary/0/task_*/part-*.parquet"))


def between_tasks(out: Path) -> bool:
    """Tell whether one of a part's two tasks is finished and the other is running."""
    return len(list(out.glob("_temporary/0/task_*"))) == 1 and bool(list(out.glob("_temporary/0/_temporary/attempt_*")))


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "the job did not get there in five minutes"
        time.sleep(0.05)


def numbers(log: Path) -> list[int]:
    return [int(line.split()[3].rstrip(",")) for line in recorded(log)]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="the processes to kill are found in /proc")
def test_killed_job_is_completed_by_running_it_again(
    tmp_path: Path, start: Callable[[], subprocess.Popen[str]]
) -> None:
    out, log = tmp_path / "out", tmp_path / "log"
    first = start()
    wait_for(lambda: bool(committed(out)) and between_tasks(out), first)
    kill(first)
    before, rescued = committed(out), finished(out)
    assert before
    assert rescued
    assert len(before) + len(rescued) < ROWS
    ran = numbers(log)
    assert len(ran) < ROWS
    contents = {path: path.read_bytes() for path in out.glob("part-*.parquet")}
    log.unlink()

    second = start()
    told, errors = second.communicate(timeout=300)
    assert second.returncode == 0, errors
    assert sorted(committed(out)) == list(range(ROWS))
    again = numbers(log)
    assert sorted(again) == sorted(set(range(ROWS)) - set(before) - set(rescued))
    assert {path: path.read_bytes() for path in contents} == contents
    there = len(before) + len(rescued)
    assert f"  rows              {ROWS - there} ({there} more were there already)" in told.splitlines()
    assert not (out / "_temporary").exists()
