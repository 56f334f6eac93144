"""Resumed jobs: complete, without doubles, and no row that is written is annotated again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

import sparktasks
from sparktasks.errors import ColumnError, JobError
from sparktasks.jobs.loading import load_job
from sparktasks.jobs.report import Counts, Summary
from sparktasks.jobs.run import run_job
from tests.jobs.making import texts, write_job, write_lines
from tests.jobs.recorder import Recorder, recorded

RESUME: dict[str, Any] = {"id": "id", "resume": True, "chunks": 3}


@pytest.fixture(autouse=True)
def _front_door(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparktasks, "Recorder", Recorder, raising=False)
    monkeypatch.setattr(sparktasks, "__all__", [*sparktasks.__all__, "Recorder"])


def run(spark: SparkSession, folder: Path, fail: str = "", **changes: Any) -> Summary:
    stages = [
        {"DocumentAssembler": {"inputCol": "text"}},
        {"Recorder": {"log": str(folder / "log")}},
        {"Finisher": {"inputCols": ["recorded"], "outputAs": "first"}},
    ]
    folder.mkdir(exist_ok=True)
    (folder / "log.fail").write_text(fail)
    return run_job(load_job(write_job(folder, **({"stages": stages} | RESUME | changes))), spark)


def ids(spark: SparkSession, folder: Path) -> list[int]:
    return sorted(row["id"] for row in spark.read.parquet(str(folder / "out")).collect())


def runs_of(folder: Path) -> list[int]:
    """Return the id of each text that was run."""
    return sorted(int(text.split()[3].rstrip(",")) for text in recorded(folder / "log"))


def test_first_run_writes_each_part_on_its_own(spark: SparkSession, tmp_path: Path) -> None:
    write_lines(tmp_path / "in" / "a.json", texts(range(30)))
    summary = run(spark, tmp_path)
    assert (summary.counts, summary.already, summary.strays) == (Counts(30, 0), 0, 0)
    assert ids(spark, tmp_path) == runs_of(tmp_path) == list(range(30))
    files = [path for path in (tmp_path / "out").glob("part-*") if spark.read.parquet(str(path)).count()]
    assert len({path.name.split("-", 2)[2] for path in files}) == 3


def test_second_run_annotates_only_what_is_missing(spark: SparkSession, tmp_path: Path) -> None:
    write_lines(tmp_path / "in" / "a.json", texts(range(12)))
    run(spark, tmp_path)
    (tmp_path / "log").unlink()
    write_lines(tmp_path / "in" / "b.json", texts(range(12, 30)))
    summary = run(spark, tmp_path, chunks=5)
    assert (summary.counts, summary.already) == (Counts(18, 0), 12)
    assert "  rows              18 (12 more were there already)" in summary.lines()
    assert runs_of(tmp_path) == list(range(12, 30))
    assert ids(spark, tmp_path) == list(range(30))


def test_run_with_nothing_left_runs_nothing(spark: SparkSession, tmp_path: Path) -> None:
    write_lines(tmp_path / "in" / "a.json", texts(range(12)))
    run(spark, tmp_path)
    (tmp_path / "log").unlink()
    summary = run(spark, tmp_path)
    assert (summary.counts, summary.already) == (Counts(0, 0), 12)
    assert runs_of(tmp_path) == []
    assert ids(spark, tmp_path) == list(range(12))


def test_run_over_no_rows_leaves_output_that_can_be_read(spark: SparkSession, tmp_path: Path) -> None:
    write_lines(tmp_path / "in" / "a.json", [])
    assert run(spark, tmp_path).counts == Counts(0, 0)
    frame = spark.read.parquet(str(tmp_path / "out"))
    assert (frame.columns, frame.count()) == (["id", "text", "finished_recorded"], 0)


def test_failed_part_leaves_the_parts_before_it(
    spark: SparkSession, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_lines(tmp_path / "in" / "a.json", texts(range(30)))
    run(spark, tmp_path / "whole", read={"path": str(tmp_path / "in")}, write={"path": str(tmp_path / "whole" / "out")})
    last = recorded(tmp_path / "whole" / "log")[-1]
    with pytest.raises(Exception, match="is not wanted"):
        run(spark, tmp_path, fail=last)
    assert (
        "part 3 of 3 failed; 2 parts are written, and running the job again goes on from there"
        in capsys.readouterr().err
    )
    before = ids(spark, tmp_path)
    assert 0 < len(before) < 30
    (tmp_path / "log").unlink()
    summary = run(spark, tmp_path)
    assert (summary.counts.rows, summary.already) == (30 - len(before), len(before))
    assert runs_of(tmp_path) == sorted(set(range(30)) - set(before))
    assert ids(spark, tmp_path) == list(range(30))


def test_run_takes_over_what_a_killed_run_had_finished(spark: SparkSession, tmp_path: Path) -> None:
    """Hadoop's committer moves finished tasks that a killed run left into the output of the next: they must count as
    written."""
    write_lines(tmp_path / "in" / "a.json", texts(range(30)))
    run(spark, tmp_path)
    out, left = tmp_path / "out", tmp_path / "out" / "_temporary" / "0"
    parts = sorted(path for path in out.glob("part-*") if spark.read.parquet(str(path)).count())
    finished, unfinished, gone = parts
    lost = [row["id"] for path in (unfinished, gone) for row in spark.read.parquet(str(path)).collect()]
    for path, folder in (
        (finished, left / "task_1_m_000000"),
        (unfinished, left / "_temporary" / "attempt_1_m_000001_1"),
    ):
        folder.mkdir(parents=True)
        shutil.move(path, folder)
    gone.unlink()
    (tmp_path / "log").unlink()
    summary = run(spark, tmp_path)
    assert (summary.counts.rows, summary.already) == (len(lost), 30 - len(lost))
    assert runs_of(tmp_path) == sorted(lost)
    assert ids(spark, tmp_path) == list(range(30))
    assert not (out / "_temporary").exists()


FORMATS: dict[str, tuple[dict[str, Any], str]] = {
    "parquet by day": ({"format": "parquet", "partitionBy": ["day"]}, "bigint"),
    "orc": ({"format": "orc"}, "string"),
    "json": ({"format": "json", "options": {"compression": "gzip"}}, "string"),
    "csv": ({"format": "csv"}, "bigint"),
    "csv by day": ({"format": "csv", "options": {"header": True, "sep": "|"}, "partitionBy": ["day"]}, "string"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_resume_reads_its_own_output_back(spark: SparkSession, tmp_path: Path, name: str) -> None:
    section, kind = FORMATS[name]
    rows = [row | {"day": f"d{row['id'] % 2}"} for row in texts(range(20))]
    common: dict[str, Any] = {
        "read": {"schema": f"id {kind}, text string, day string"},
        "write": section,
        "chunks": 1,
    }
    write_lines(tmp_path / "in" / "a.json", rows[:8])
    run(spark, tmp_path, **common)
    write_lines(tmp_path / "in" / "b.json", rows[8:])
    summary = run(spark, tmp_path, **common)
    assert (summary.counts.rows, summary.already, summary.strays) == (12, 8, 0)
    assert runs_of(tmp_path) == list(range(20))


@pytest.mark.parametrize("kind", ["decimal(12,2)", "date"])
@pytest.mark.parametrize("format", ["parquet", "csv"])
def test_ids_may_be_decimals_and_dates_or_be_cast(spark: SparkSession, tmp_path: Path, kind: str, format: str) -> None:
    values = [f"{day:02}" for day in range(1, 9)]
    rows = [
        {"id": f"2026-01-{value}" if kind == "date" else f"17.{value}", "text": f"Play song number {value}, please"}
        for value in values
    ]
    common: dict[str, Any] = {
        "read": {"schema": "id string, text string", "columns": [f"CAST(id AS {kind}) AS id", "text"]},
        "write": {"format": format},
        "chunks": 1,
    }
    write_lines(tmp_path / "in" / "a.json", rows[:3])
    run(spark, tmp_path, **common)
    write_lines(tmp_path / "in" / "b.json", rows[3:])
    summary = run(spark, tmp_path, **common)
    assert (summary.counts.rows, summary.already, summary.strays) == (5, 3, 0)


def test_resume_into_a_table(spark: SparkSession, tmp_path: Path, table: str) -> None:
    write_lines(tmp_path / "in" / "a.json", texts(range(5)))
    run(spark, tmp_path, write={"path": None, "table": table})
    write_lines(tmp_path / "in" / "b.json", texts(range(5, 9)))
    summary = run(spark, tmp_path, write={"path": None, "table": table})
    assert (summary.counts.rows, summary.already) == (4, 5)
    assert sorted(row["id"] for row in spark.table(table).collect()) == runs_of(tmp_path) == list(range(9))


@pytest.fixture
def table(spark: SparkSession) -> Iterator[str]:
    yield "jobs_resumed"
    spark.sql("DROP TABLE IF EXISTS jobs_resumed")


def test_ids_that_the_input_lacks_are_mentioned(spark: SparkSession, tmp_path: Path) -> None:
    write_lines(tmp_path / "in" / "a.json", texts(range(10)))
    run(spark, tmp_path)
    write_lines(tmp_path / "in" / "a.json", texts(range(7, 12)))
    summary = run(spark, tmp_path)
    assert (summary.counts.rows, summary.already, summary.strays) == (2, 3, 7)
    assert summary.lines()[-1] == "  note              the output also holds 7 ids that the input does not have"
    assert ids(spark, tmp_path) == list(range(12))


BAD_IDS: dict[str, tuple[list[Any], str, dict[str, Any], str]] = {
    "null": ([1, None, None], "bigint", {}, r"column 'id', but None is there \(2 rows\)"),
    "twice": ([1, 2, 2], "bigint", {}, r"2 is there more than once \(2 rows\)"),
    "blank in CSV": ([" a", "b"], "string", {"format": "csv"}, "' a' would not survive being written as CSV"),
    "empty in CSV": (["", "b"], "string", {"format": "csv"}, "'' would not survive being written as CSV"),
}


@pytest.mark.parametrize("name", BAD_IDS)
def test_ids_that_do_not_tell_rows_apart_are_refused(spark: SparkSession, tmp_path: Path, name: str) -> None:
    values, kind, section, expected = BAD_IDS[name]
    write_lines(tmp_path / "in" / "a.json", [{"id": value, "text": "one"} for value in values])
    with pytest.raises(JobError, match=expected):
        run(spark, tmp_path, read={"schema": f"id {kind}, text string"}, write=section)
    assert recorded(tmp_path / "log") == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"id": "idd"}, r"read: the id column 'idd' does not exist\. Did you mean 'id'\?"),
        ({"id": "score"}, "the id column 'score' is double, but ids are strings or whole numbers"),
        (
            {"write": {"columns": ["text"]}},
            "write: the id column 'id' must be among the columns written, which are 'text'",
        ),
    ],
)
def test_id_column_that_cannot_serve_is_refused(
    spark: SparkSession, tmp_path: Path, changes: dict[str, Any], expected: str
) -> None:
    write_lines(tmp_path / "in" / "a.json", texts(range(3)))
    with pytest.raises(ColumnError, match=expected):
        run(spark, tmp_path, read={"schema": "id bigint, text string, score double"}, **changes)
    assert not (tmp_path / "out").exists()
