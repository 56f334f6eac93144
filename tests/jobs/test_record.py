"""A resumed job looks at what is there: rows made in another way are refused, replaced or adopted, those with errors
retried."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyspark.ml import Pipeline
from pyspark.sql import SparkSession

from sparktasks import DocumentAssembler, Finisher, TextClassifier
from sparktasks.errors import ColumnError, JobError
from sparktasks.jobs.loading import load_job
from sparktasks.jobs.report import Counts, Summary
from sparktasks.jobs.run import run_job
from tests.jobs.making import BUNDLE, STAGES, texts, write_job, write_lines

LIGHT: list[Any] = [
    {"DocumentAssembler": {"inputCol": "text"}},
    {"Finisher": {"inputCols": ["document"], "outputAs": "first"}},
]


def run(spark: SparkSession, folder: Path, **changes: Any) -> Summary:
    settings = {"stages": LIGHT, "id": "id", "resume": True, "chunks": 1} | changes
    return run_job(load_job(write_job(folder, **settings)), spark)


def refusal(spark: SparkSession, folder: Path, **changes: Any) -> str:
    with pytest.raises(JobError) as caught:
        run(spark, folder, **changes)
    return str(caught.value)


def state(out: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    write_lines(tmp_path / "in" / "a.json", texts(range(6)))
    return tmp_path


def finisher(**params: Any) -> list[Any]:
    return [LIGHT[0], {"Finisher": {"inputCols": ["document"], "outputAs": "first"} | params}]


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "param": (
        {"stages": [{"DocumentAssembler": {"inputCol": "text", "cleanupMode": "shrink"}}, LIGHT[1]]},
        'cleanupMode: it was "disabled", it is "shrink"',
    ),
    "type of a column": ({"stages": finisher(outputAs="array")}, "finished_document array<string>"),
    "name of a column": ({"stages": finisher(outputCols=["text2"])}, 'outputCols: it was null, it is ["text2"]'),
    "order of stages": ({"stages": [LIGHT[0], "RegexTokenizer", LIGHT[1]]}, '"RegexTokenizer"'),
    "columns": (
        {"write": {"columns": ["id", "upper(finished_document) AS finished_document"]}},
        "write columns: it was null",
    ),
    "columns read": ({"read": {"columns": ["id", "upper(text) AS text"]}}, "read columns: it was null"),
    "partitions": ({"write": {"partitionBy": ["text"]}}, 'write partitionBy: it was [], it is ["text"]'),
    "format": ({"write": {"format": "json"}}, 'write format: it was "parquet", it is "json"'),
}


@pytest.fixture(scope="module")
def written(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose job has run; for tests that change nothing in it."""
    folder = tmp_path_factory.mktemp("written")
    write_lines(folder / "in" / "a.json", texts(range(6)))
    run(spark, folder)
    return folder


@pytest.mark.parametrize("change", CHANGES)
def test_rows_made_in_another_way_are_refused_and_what_changed_is_named(
    spark: SparkSession, written: Path, change: str
) -> None:
    changes, expected = CHANGES[change]
    before = state(written / "out")
    message = refusal(spark, written, **changes)
    assert expected in message
    assert "holds rows that were made in another way" in message
    assert "`resume: redo`" in message
    assert state(written / "out") == before


def test_another_model_is_another_way(spark: SparkSession, songs: Path) -> None:
    model = shutil.copytree(BUNDLE, songs / "model")
    stages = [STAGES[0], {"TextClassifier": {"pretrained": str(model), "outputCol": "intent"}}, STAGES[2]]
    run(spark, songs, stages=stages)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(
        json.dumps(config | {"id2label": {key: f"other {key}" for key in config["id2label"]}})
    )
    assert "stages[1] TextClassifier: model: it was " in refusal(spark, songs, stages=stages)


def test_what_only_changes_the_speed_is_no_change(spark: SparkSession, songs: Path) -> None:
    run(spark, songs, stages=STAGES)
    quick = {"TextClassifier": STAGES[1]["TextClassifier"] | {"batchTokens": 64, "device": "cpu"}}
    summary = run(
        spark, songs, stages=[STAGES[0], quick, STAGES[2]], write={"options": {"compression": "zstd"}}, chunks=5
    )
    assert (summary.counts, summary.already) == (Counts(0, 0), 6)


def test_idle_run_adds_no_file(spark: SparkSession, written: Path) -> None:
    before = state(written / "out")
    assert run(spark, written).already == 6
    assert state(written / "out") == before


def test_param_of_a_newer_version_at_its_default_is_no_change(spark: SparkSession, songs: Path) -> None:
    run(spark, songs)
    file = songs / "out" / "_sparktasks.json"
    content = json.loads(file.read_text())
    del content["job"]["stages[0] DocumentAssembler: cleanupMode"]
    content["job"]["stages[0] DocumentAssembler: removedSince"] = 1
    file.write_text(json.dumps(content))
    assert run(spark, songs).already == 6


def test_redo_replaces_the_output(spark: SparkSession, songs: Path) -> None:
    run(spark, songs, write={"partitionBy": ["text"]})
    spark.conf.set("spark.sql.sources.partitionOverwriteMode", "dynamic")
    try:
        summary = run(spark, songs, stages=finisher(outputAs="array"), resume="redo", write={"partitionBy": ["text"]})
    finally:
        spark.conf.unset("spark.sql.sources.partitionOverwriteMode")
    assert (summary.counts, summary.already) == (Counts(6, 0), 0)
    frame = spark.read.parquet(str(songs / "out"))
    assert (frame.count(), frame.schema["finished_document"].dataType.simpleString()) == (6, "array<string>")
    assert run(spark, songs, stages=finisher(outputAs="array"), write={"partitionBy": ["text"]}).already == 6


@pytest.mark.parametrize("format", ["parquet", "csv"])
def test_rows_of_nobody_knows_what_are_not_taken_for_the_jobs(spark: SparkSession, songs: Path, format: str) -> None:
    there = spark.createDataFrame([(1, "one", "one"), (99, "x", "x")], "id long, text string, finished_document string")
    there.write.format(format).save(str(songs / "out"))
    assert "holds rows, but no _sparktasks.json" in refusal(spark, songs, write={"format": format})
    summary = run(spark, songs, resume="adopt", write={"format": format})
    assert (summary.counts.rows, summary.already, summary.strays) == (5, 1, 1)
    assert run(spark, songs, write={"format": format}).already == 6


def test_rows_of_other_columns_cannot_be_adopted(spark: SparkSession, songs: Path) -> None:
    spark.createDataFrame([(1, 5)], "id long, finished_document int").write.parquet(str(songs / "out"))
    message = refusal(spark, songs, resume="adopt")
    assert (
        "There: 'finished_document int', 'text (no such column)'. This job: 'finished_document string', 'text string'"
        in message
    )


def test_leftovers_of_another_job_are_not_taken_over(spark: SparkSession, songs: Path) -> None:
    spark.createDataFrame([(1, "a", "a")], "id long, text string, finished_document string").write.parquet(
        str(songs / "other")
    )
    part = next((songs / "other").glob("part-*"))
    task = songs / "out" / "_temporary" / "0" / "task_1_m_000000"
    task.mkdir(parents=True)
    shutil.move(part, task)
    assert "no _sparktasks.json" in refusal(spark, songs)


@pytest.fixture
def table(spark: SparkSession) -> Iterator[str]:
    yield "jobs_recorded"
    spark.sql("DROP TABLE IF EXISTS jobs_recorded")


def test_table_keeps_its_record_as_a_property(spark: SparkSession, songs: Path, table: str) -> None:
    place = {"path": None, "table": table}
    stages = [
        {"DocumentAssembler": {"inputCol": "text"}},
        {"RegexTokenizer": {"pattern": r"it's \"${x}\" \\ 'y'"}},
        LIGHT[1],
    ]
    run(spark, songs, stages=stages, write=place)
    assert run(spark, songs, stages=stages, write=place).already == 6
    assert "RegexTokenizer" in refusal(spark, songs, write=place)
    assert run(spark, songs, resume="redo", write=place).counts.rows == 6
    spark.sql(f"ALTER TABLE {table} UNSET TBLPROPERTIES ('sparktasks')")
    assert "holds rows, but no" in refusal(spark, songs, write=place)


def test_saved_pipeline_has_a_record_too(spark: SparkSession, songs: Path) -> None:
    stages = [DocumentAssembler(), Finisher(inputCols=["document"])]
    Pipeline(stages=stages).fit(spark.range(1)).write().save(str(songs / "saved"))
    run(spark, songs, stages=None, pipeline=str(songs / "saved"))
    assert run(spark, songs, stages=None, pipeline=str(songs / "saved")).already == 6
    Pipeline(stages=[stages[0], Finisher(inputCols=["document"], outputAs="first")]).fit(
        spark.range(1)
    ).write().overwrite().save(str(songs / "saved"))
    assert "outputAs" in refusal(spark, songs, stages=None, pipeline=str(songs / "saved"))


BREAKS = [
    "one\n7,two",
    'say "no"\n11,x',
    "comma, semicolon; \\",
    "\n",
    "a\r\nb",
    '"',
    "\\\n3,\\",
    'ends with "',
    "tab\tand 'quote'",
]


@pytest.mark.parametrize(
    "options",
    [{}, {"header": True}, {"escape": '"', "sep": "|", "MULTILINE": False}, {"quoteAll": True, "compression": "gzip"}],
)
def test_texts_with_line_breaks_do_not_count_as_rows_in_csv(
    spark: SparkSession, tmp_path: Path, options: dict[str, Any]
) -> None:
    rows = [{"id": number, "text": text} for number, text in enumerate(BREAKS)]
    write_lines(tmp_path / "in" / "a.json", rows)
    summary = run(spark, tmp_path, write={"format": "csv", "options": options})
    assert summary.notes == ()
    write_lines(tmp_path / "in" / "b.json", texts(range(len(BREAKS), 20)))
    summary = run(spark, tmp_path, write={"format": "csv", "options": options})
    assert (summary.counts.rows, summary.already, summary.strays) == (20 - len(BREAKS), len(BREAKS), 0)


def test_csv_that_does_not_come_back_stops_the_job(spark: SparkSession, tmp_path: Path) -> None:
    write_lines(tmp_path / "in" / "a.json", [{"id": 1, "text": "one\n7,two,three"}, {"id": 2, "text": "two, three"}])
    with pytest.raises(Exception, match=r"(?i)malformed"):
        run(spark, tmp_path, write={"format": "csv", "options": {"quote": ""}})


# -- rows with errors

PAIRS: list[Any] = [
    {"DocumentAssembler": {"inputCols": ["a", "b"], "outputCols": ["left", "right"]}},
    {"TextClassifier": {"pretrained": str(BUNDLE), "inputCols": ["left", "right"], "outputCol": "pair"}},
]
PAIRS_READ = {"schema": "id long, day string, a array<string>, b array<string>"}
WAYS: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "annotations, by a folder with a blank": ([], {"partitionBy": ["day"]}),
    "finished": ([{"Finisher": {"inputCols": ["pair"], "values": ["result", "error"]}}], {"format": "orc"}),
    "an expression": (
        [],
        {"format": "json", "columns": ["id", "day", "get(pair, size(pair) - 1).metadata['error'] AS error"]},
    ),
}


def pairs(folder: Path, *broken: int) -> None:
    rows = [{"id": number, "day": f"d {number % 2}%", "a": ["x", "y"], "b": ["1", "2"]} for number in range(8)]
    for number in broken:
        rows[number]["a"] = ["x", "y", "z"]  # the third has no partner: an error
    write_lines(folder / "in" / "a.json", rows)


@pytest.mark.parametrize("way", WAYS)
def test_rows_with_errors_are_counted_and_retried(spark: SparkSession, tmp_path: Path, way: str) -> None:
    more, section = WAYS[way]
    settings: dict[str, Any] = {"stages": [*PAIRS, *more], "write": section, "read": PAIRS_READ}
    pairs(tmp_path, 1, 2)
    assert run(spark, tmp_path, **settings).counts == Counts(8, 2)
    idle = run(spark, tmp_path, **settings)
    assert "  rows with errors  0 (2 in the whole output; `retry: errors` annotates them again)" in idle.lines()
    pairs(tmp_path, 1)
    summary = run(spark, tmp_path, retry="errors", **settings)
    assert (summary.counts, summary.already, summary.errors, summary.notes) == (Counts(2, 1), 6, 1, ())
    frame = spark.read.format(section.get("format", "parquet")).load(str(tmp_path / "out"))
    assert sorted((row["id"], row["day"]) for row in frame.collect()) == [
        (number, f"d {number % 2}%") for number in range(8)
    ]
    assert not list((tmp_path / "out").glob("_sparktasks.retry*"))


class Killed(BaseException):
    """What a test raises in the place of a SIGKILL."""


def kill(*_: Any) -> None:
    raise Killed


@pytest.mark.parametrize("step", ["replace", "rename", "remove"])
def test_retry_that_is_killed_loses_no_row_and_leaves_none_twice(
    spark: SparkSession, tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"stages": PAIRS, "read": PAIRS_READ}
    pairs(tmp_path, 1, 2, 6)
    run(spark, tmp_path, **settings)
    pairs(tmp_path)

    with monkeypatch.context() as patch:
        patch.setattr(f"sparktasks.jobs.files.LocalFiles.{step}", kill)
        with pytest.raises(Killed):
            run(spark, tmp_path, retry="errors", **settings)
    (tmp_path / "_out.sparktasks.lock").unlink(missing_ok=True)
    summary = run(spark, tmp_path, retry="errors", **settings)
    assert (summary.errors, summary.notes) == (0, ())
    assert sorted(row["id"] for row in spark.read.parquet(str(tmp_path / "out")).collect()) == list(range(8))


def test_retry_needs_a_column_that_shows_errors(spark: SparkSession, written: Path) -> None:
    with pytest.raises(
        ColumnError, match=r"'error' or '\.\.\._error'.*Columns written: 'id', 'text', 'finished_document'"
    ):
        run(spark, written, retry="errors")


def test_columns_of_the_input_are_no_errors(spark: SparkSession, tmp_path: Path) -> None:
    write_lines(tmp_path / "in" / "a.json", [row | {"parse_error": "old"} for row in texts(range(3))])
    summary = run(spark, tmp_path, read={"schema": "id long, text string, parse_error string"})
    assert (summary.counts, summary.errors) == (Counts(3, 0), None)


def test_model_of_a_stage_is_part_of_the_record(spark: SparkSession, songs: Path) -> None:
    run(spark, songs, stages=STAGES)
    content = json.loads((songs / "out" / "_sparktasks.json").read_text())
    assert content["job"]["stages[1] TextClassifier: model"] == TextClassifier.pretrained(BUNDLE).getBundle().hash
