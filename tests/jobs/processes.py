"""Slow jobs in processes of their own, to be looked at, stopped and killed while they run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tests.conftest import SETTINGS
from tests.jobs.making import BUNDLE, texts, write_job, write_lines
from tests.jobs.recorder import recorded

ROWS = 24


def write_slow_job(folder: Path, seconds: float = 0.0, cores: int = 1, with_model: bool = False) -> Path:
    """Write a resumed job of four parts over two files, of which the texts of the second take some time each."""
    rows = texts(range(ROWS))
    for row in rows[ROWS // 2 :]:
        row["text"] += " slowly"
    write_lines(folder / "in" / "a.json", rows[: ROWS // 2])
    write_lines(folder / "in" / "b.json", rows[ROWS // 2 :])
    stages: list[Any] = [
        {"DocumentAssembler": {"inputCol": "text"}},
        {"Recorder": {"log": str(folder / "log"), "slow": "slowly", "seconds": seconds}},
    ]
    output = "recorded"
    if with_model:
        output = "intent"
        stages.append({"TextClassifier": {"pretrained": str(BUNDLE), "inputCols": ["recorded"], "outputCol": output}})
    stages.append({"Finisher": {"inputCols": [output]}})
    spark = {"master": f"local[{cores}]", "config": SETTINGS | {"spark.log.level": "OFF"}}
    return write_job(folder, spark=spark, stages=stages, id="id", resume=True, chunks=4)


def hold(folder: Path) -> Path:
    """Make the job wait in its third part, where the first file's rows are done, as long as the returned file is
    there."""
    file = folder / "log.hold"
    file.write_text("Play song number 14, please slowly")
    return file


def start(job: Path) -> subprocess.Popen[str]:
    """Start a run in a session of processes of its own; the JVM outlives a killed Python for a while."""
    command = [sys.executable, "-m", "tests.jobs.recorder", "run", str(job)]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def kill_all(process: subprocess.Popen[str]) -> None:
    """SIGKILL for the driver, its JVM and its Python workers (Spark's worker daemon leads a process group of its
    own)."""
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.getsid(int(entry.name)) == process.pid:
                os.kill(int(entry.name), signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()
    process.stderr.close()  # type: ignore[union-attr]


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "the job did not get there in five minutes"
        time.sleep(0.02)


def ids_in(files: Iterable[Path]) -> list[int]:
    return [number for file in files for number in pq.read_table(file, columns=["id"]).column("id").to_pylist()]


def ids(out: Path) -> list[int]:
    """Return the ids that are committed."""
    return ids_in(out.glob("part-*.parquet"))


def finished_tasks(out: Path) -> list[Path]:
    """Return the files of finished tasks of a part that is not committed."""
    return list(out.glob("_temporary/0/task_*/part-*.parquet"))


def ids_run(log: Path) -> list[int]:
    """Return the id of each text that was run, in order."""
    return sorted(int(text.split()[3].rstrip(",")) for text in recorded(log))
