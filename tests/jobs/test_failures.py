"""What a job says last: one line with the reason, and exit 2 for what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from sparktasks import cli
from sparktasks.errors import DataError, OutputError
from sparktasks.jobs.failures import failure, reason, refusal
from tests.jobs.making import texts, write_job, write_lines
from tests.jobs.test_run import PAIR_READ, PAIR_ROWS, PAIRS


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    write_lines(tmp_path / "in" / "a.json", texts(range(3)))
    return tmp_path


def failed_run(capsys: pytest.CaptureFixture[str], job: Path, *options: str) -> tuple[Any, list[str]]:
    """Run a job that does not succeed; return the exit code and what is said on stderr, but for Spark's own lines."""
    with pytest.raises(SystemExit) as stopped:
        cli.main(["run", str(job), *options])
    return stopped.value.code, [
        line for line in capsys.readouterr().err.splitlines() if line.startswith("sparktasks: ")
    ]


LIGHT = ["DocumentAssembler"]
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "typo in what is read": ({"read": {"format": "cvs"}}, "there is no format 'cvs'. Did you mean 'csv'?"),
    "typo in what is written": (
        {"write": {"format": "parqet"}},
        "there is no format 'parqet'. Did you mean 'parquet'?",
    ),
    "typo in a resumed job": ({"write": {"format": "parqet"}, "id": "id", "resume": True}, "Did you mean 'parquet'?"),
    "class of nobody": (
        {"read": {"format": "com.acme.Rows"}},
        "there is no format 'com.acme.Rows'. A data source of your own must be registered",
    ),
    "package of Spark": ({"write": {"format": "avro"}}, "{spark.jars.packages: org.apache.spark:spark-avro_2.1"),
    "package of others": ({"write": {"format": "delta"}}, "io.delta.sql.DeltaSparkSessionExtension"),
    "file system": (
        {"read": {"path": "s3a://bucket/in"}},
        "paths of s3a: need a package that this session does not have",
    ),
    "driver": (
        {"read": {"format": "jdbc", "path": None, "schema": None, "options": {"url": "jdbc:x://y", "dbtable": "t"}}},
        "no JDBC driver",
    ),
    "path": ({"read": {"path": "/nowhere"}}, "[PATH_NOT_FOUND] Path does not exist: file:/nowhere."),
    "condition": ({"read": {"where": "id > >"}}, "[PARSE_SYNTAX_ERROR] Syntax error at or near"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_is_said_in_one_line(
    spark: SparkSession, songs: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    changes, expected = REFUSED[case]
    code, lines = failed_run(capsys, write_job(songs, stages=LIGHT, **changes))
    assert code == cli.REFUSED
    assert len(lines) == 1
    assert expected in lines[0]
    assert not list(songs.glob("_out*"))


def test_fault_of_a_row_is_said_in_its_own_words(
    spark: SparkSession, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_lines(tmp_path / "in" / "a.json", PAIR_ROWS)
    job = write_job(tmp_path, stages=PAIRS, read=PAIR_READ, onError="fail")
    code, lines = failed_run(capsys, job)
    assert code == cli.FAILED
    assert lines[-1].startswith("sparktasks: failed: DataError: ")
    assert "there is no document to pair" in lines[-1]
    log = Path(lines[0].removeprefix("sparktasks: Traceback in "))
    assert "Traceback (most recent call last)" in log.read_text()
    log.unlink()
    with pytest.raises(SystemExit):
        cli.main(["run", str(job), "--traceback"])
    err = capsys.readouterr().err
    assert "Traceback (most recent call last)" in err
    assert ".log" not in err


FAILURES = {
    "a task in the JVM": (
        "An error occurred while calling o1.save.\n: org.apache.spark.SparkException: Job aborted due to stage "
        "failure: Task 0 in "
        "stage 3.0 failed 4 times, most recent failure: Lost task 0.3 in stage 3.0 (TID 3) (10.0.0.1 executor 2): "
        "java.io.IOException: No space left on device\n\tat java.io.X(Y)\nDriver stacktrace:\n\tat z",
        "IOException: No space left on device",
    ),
    "a cause below": (
        "An error occurred while calling o1.save.\n: org.apache.spark.SparkException: [FAILED_READ_FILE.NO_HINT] "
        "Encountered error. "
        "SQLSTATE: KD001\n\tat a\nCaused by: x.y.Wrapped\n\tat b\nCaused by: x.JsonParseException: Unrecognized "
        "token\n\tat c\n\t... 3 more",
        "[FAILED_READ_FILE.NO_HINT] Encountered error. Cause: JsonParseException: Unrecognized token",
    ),
    "Connect": (
        "(java.net.UnknownHostException) nowhere\n\nJVM stacktrace:\njava.net.UnknownHostException\n\tat x",
        "UnknownHostException: nowhere",
    ),
    "a worker": (
        "Job aborted: org.apache.spark.api.python.PythonException: Traceback (most recent call last):\n  File 'x', "
        "line 1, in f\n"
        "    raise DataError('no')\nsparktasks.errors.DataError: no such thing\nand more\n\n\tat org.x\n",
        "DataError: no such thing",
    ),
    "errors in a chain": (
        "Traceback (most recent call last):\n  File 'x'\nKeyError: 1\n\nDuring handling of the above exception, "
        "another exception occurred:\n\n"
        "Traceback (most recent call last):\n  File 'y'\nValueError: two\n",
        "ValueError: two",
    ),
    "nothing": ("", "no message"),
}


@pytest.mark.parametrize("case", FAILURES)
def test_root_cause_is_dug_out(case: str) -> None:
    text, expected = FAILURES[case]
    assert reason(Exception(text)) == expected


def test_errors_while_running_are_no_refusals() -> None:
    assert refusal(DataError("x")) is refusal(OutputError("x")) is refusal(ValueError("x")) is None
    assert failure(ValueError("x")) == "ValueError: x"
