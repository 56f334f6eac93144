"""Whole jobs in the tests' session: what is written, what is counted, what is refused."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyspark.errors import AnalysisException
from pyspark.ml import Pipeline
from pyspark.sql import DataFrame, SparkSession

from sparktasks import DocumentAssembler, Finisher, LocalPipeline, TextClassifier
from sparktasks.errors import ColumnError
from sparktasks.jobs import report
from sparktasks.jobs.loading import load_job
from sparktasks.jobs.report import Counts, Summary
from sparktasks.jobs.run import run_job
from sparktasks.jobs.stages import annotated, build_stages
from sparktasks.spark.fusion import FUSE_SETTING, chain_of
from tests.jobs.making import BUNDLE, STAGES, texts, write_job, write_lines

PAIRS: list[Any] = [
    {"DocumentAssembler": {"inputCols": ["a", "b"], "outputCols": ["left", "right"]}},
    {"TextClassifier": {"pretrained": str(BUNDLE), "inputCols": ["left", "right"], "outputCol": "pair"}},
]
PAIR_ROWS = [
    {"id": 0, "a": ["one", "two"], "b": ["eins", "zwei"]},
    {"id": 1, "a": ["one", "two", "three"], "b": ["eins", "zwei"]},  # the third has no partner: an error
    {"id": 2, "a": ["one"], "b": ["eins"]},
    {"id": 3, "a": [], "b": ["eins"]},
    {"id": 4, "a": None, "b": None},
    {"id": 5, "a": ["one", "two", "three", "four"], "b": ["eins", "zwei"]},  # two errors, one row
]
PAIR_READ = {"schema": "id bigint, a array<string>, b array<string>"}


def run(spark: SparkSession, folder: Path, **changes: Any) -> Summary:
    return run_job(load_job(write_job(folder, **changes)), spark)


def written(spark: SparkSession, folder: Path) -> DataFrame:
    return spark.read.parquet(str(folder / "out"))


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    """A folder whose ``in`` has 20 texts in two files."""
    write_lines(tmp_path / "in" / "a.json", texts(range(10)))
    write_lines(tmp_path / "in" / "b.json", texts(range(10, 20)))
    return tmp_path


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    write_lines(tmp_path / "in" / "a.json", PAIR_ROWS)
    return tmp_path


def test_run_from_csv_to_parquet_writes_what_the_stages_make(spark: SparkSession, tmp_path: Path) -> None:
    rows = ['1,"Play ""Yesterday"", please",mon', "2,Set an alarm,tue", '3,"two\nlines",mon', "4,,tue"]
    (tmp_path / "in.csv").write_text("\n".join(["id,text,day", *rows]) + "\n")
    summary = run(
        spark,
        tmp_path,
        read={
            "format": "csv",
            "path": str(tmp_path / "in.csv"),
            "schema": "id bigint, text string, day string",
            "options": {"header": True, "multiLine": True, "escape": '"'},
            "where": "id < 4",
        },
        write={
            "partitionBy": ["day"],
            "options": {"compression": "zstd"},
            "columns": ["id", "day", "finished_intent[0] AS intent"],
        },
    )
    local = LocalPipeline([DocumentAssembler(), TextClassifier.pretrained(BUNDLE, outputCol="intent")])
    expected = {1: 'Play "Yesterday", please', 2: "Set an alarm", 3: "two\nlines"}
    assert {row["id"]: row["intent"] for row in written(spark, tmp_path).collect()} == {
        number: local.annotate(text)["intent"][0] for number, text in expected.items()
    }
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_dir()) == ["day=mon", "day=tue"]
    assert list((tmp_path / "out").glob("day=*/*.zstd.parquet"))
    assert summary.counts == Counts(3, 0)


def test_run_names_rows_model_and_provider(spark: SparkSession, songs: Path) -> None:
    summary = run(spark, songs)
    model = TextClassifier.pretrained(BUNDLE).getBundle()
    assert summary.lines() == [
        "job: done",
        "  rows              20",
        "  rows with errors  0",
        f"  seconds           {summary.seconds:.1f}",
        f"  rows/s            {20 / summary.seconds:.1f}",
        f"  model             {BUNDLE} (TextClassifier, sha256 {model.hash[:12]}) on CPUExecutionProvider",
        f"  written to        {songs / 'out'} (parquet)",
    ]


ERROR_COUNTS: dict[str, tuple[list[Any], list[str] | None, int]] = {
    "annotations written": (PAIRS, None, 2),
    "annotations left out of the columns": (PAIRS, ["id"], 2),
    "finished": ([*PAIRS, {"Finisher": {"inputCols": ["pair"]}}], None, 2),
    "finished, annotations kept": ([*PAIRS, {"Finisher": {"inputCols": ["pair"], "cleanAnnotations": False}}], None, 2),
    "finished without what failed": ([*PAIRS, {"Finisher": {"inputCols": ["left"]}}], None, 0),
}


@pytest.mark.parametrize("case", ERROR_COUNTS)
def test_run_counts_rows_with_errors(spark: SparkSession, pairs: Path, case: str) -> None:
    stages, columns, errors = ERROR_COUNTS[case]
    summary = run(spark, pairs, stages=stages, read=PAIR_READ, write={"columns": columns} if columns else {})
    assert summary.counts == Counts(len(PAIR_ROWS), errors)
    columns_written = written(spark, pairs).columns
    assert not [name for name in columns_written if name.startswith("sparktasks_")]
    assert columns is None or columns_written == columns


def test_run_counts_errors_with_the_pandas_adapter(spark: SparkSession, pairs: Path, adapter: str) -> None:
    stages = [*PAIRS, {"Finisher": {"inputCols": ["pair"]}}]
    assert run(spark, pairs, stages=stages, read=PAIR_READ).counts == Counts(len(PAIR_ROWS), 2)


def test_run_says_unknown_where_no_annotation_is_left_to_look_at(spark: SparkSession, songs: Path) -> None:
    class Bare(DocumentAssembler):
        """Drops what it makes."""

        def transform(self, dataset: DataFrame, params: Any = None) -> DataFrame:
            return super().transform(dataset, params).select("id")

    rows = annotated(spark.read.json(str(songs / "in")), [Bare()], None)
    rows.frame.write.format("noop").mode("overwrite").save()
    assert report.counts(rows) == Counts(20, None)
    assert "  rows with errors  unknown" in Summary("job", "out", Counts(20, None), 1.0).lines()


def test_run_with_finisher_keeps_annotations_in_the_worker(spark: SparkSession, pairs: Path) -> None:
    stages = build_stages(
        load_job(write_job(pairs, stages=[*PAIRS, {"Finisher": {"inputCols": ["pair"]}}], read=PAIR_READ))
    )
    frame = annotated(spark.read.schema(PAIR_READ["schema"]).json(str(pairs / "in")), stages, None).frame
    plan = frame._jdf.queryExecution().optimizedPlan().toString()  # type: ignore[attr-defined]
    columns = set(re.findall(r"sparktasks_[0-9a-f]{12}_\d+", plan))
    assert len(columns) == 2  # the finished column and the flag: one UDF, and no annotation comes out of it


def test_run_takes_a_saved_pipeline(spark: SparkSession, songs: Path) -> None:
    stages = [
        DocumentAssembler(),
        TextClassifier.pretrained(BUNDLE, outputCol="intent"),
        Finisher(inputCols=["intent"]),
    ]
    Pipeline(stages=[Pipeline(stages=stages[:2]), stages[2]]).fit(spark.range(1)).write().save(str(songs / "saved"))
    summary = run(spark, songs, stages=None, pipeline=str(songs / "saved"))
    assert summary.counts == Counts(20, 0)
    assert summary.models[0].startswith(f"{songs / 'saved'} (TextClassifier, sha256 ")
    assert written(spark, songs).select("finished_intent").where("size(finished_intent) = 1").count() == 20


def test_run_hands_on_error_to_stages_that_do_not_say(spark: SparkSession, songs: Path) -> None:
    loud = {"TextClassifier": {"pretrained": str(BUNDLE), "outputCol": "b", "onError": "keep"}}
    stages = build_stages(load_job(write_job(songs, stages=[*STAGES[:2], loud], onError="fail")))
    assert [stage.getOnError() for stage in stages[1:]] == ["fail", "keep"]
    Pipeline(stages=stages).fit(spark.range(1)).write().save(str(songs / "saved"))
    stages = build_stages(load_job(write_job(songs, stages=None, pipeline=str(songs / "saved"), onError="fail")))
    assert [stage.getOnError() for stage in stages[1:]] == ["fail", "fail"]


def test_run_fails_on_a_data_fault_where_asked_to(spark: SparkSession, pairs: Path) -> None:
    with pytest.raises(Exception, match="there is no document to pair"):  # its type differs between versions of Spark
        run(spark, pairs, stages=PAIRS, read=PAIR_READ, onError="fail")
    assert not list((pairs / "out").glob("part-*"))


def test_run_opens_the_file_it_is_told(spark: SparkSession, songs: Path) -> None:
    other = shutil.copytree(BUNDLE, songs / "model")
    (other / "model.onnx").rename(other / "other.onnx")
    stage = {"TextClassifier": {"pretrained": str(other), "file": "other.onnx", "outputCol": "intent"}}
    assert run(spark, songs, stages=[STAGES[0], stage]).counts == Counts(20, 0)


@pytest.mark.parametrize(("mode", "rows"), [("append", 40), ("overwrite", 20)])
def test_run_obeys_the_mode(spark: SparkSession, songs: Path, mode: str, rows: int) -> None:
    run(spark, songs)
    assert run(spark, songs, write={"mode": mode}).counts == Counts(20, 0)
    assert written(spark, songs).count() == rows


def test_append_does_not_bring_in_what_a_killed_run_had_finished(spark: SparkSession, songs: Path) -> None:
    run(spark, songs)
    task = songs / "out" / "_temporary" / "0" / "task_1_m_000000"
    task.mkdir(parents=True)
    shutil.move(next((songs / "out").glob("part-*")), task)
    there = written(spark, songs).count()
    assert run(spark, songs, write={"mode": "append"}).counts == Counts(20, 0)
    assert written(spark, songs).count() == there + 20


def test_run_refuses_to_touch_output_that_is_there(spark: SparkSession, songs: Path) -> None:
    run(spark, songs)
    with pytest.raises(AnalysisException, match="already exists"):
        run(spark, songs)
    assert written(spark, songs).count() == 20


def test_run_with_mode_ignore_claims_nothing(spark: SparkSession, songs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "_COUNTS_SECONDS", 0.5)
    run(spark, songs)
    summary = run(spark, songs, write={"mode": "ignore"})
    assert not summary.counts.rows  # Spark 3.5 never tells, newer ones tell 0
    assert summary.output.endswith("or nothing where that was there already (mode: ignore)")
    assert written(spark, songs).count() == 20


def test_run_reads_and_writes_tables(spark: SparkSession, songs: Path, tables: str) -> None:
    spark.read.json(str(songs / "in")).write.saveAsTable(f"{tables}_in")
    summary = run(
        spark,
        songs,
        read={"format": None, "path": None, "schema": None, "table": f"{tables}_in"},
        write={"path": None, "table": f"{tables}_out"},
    )
    assert summary.output == f"{tables}_out (parquet)"
    assert spark.table(f"{tables}_out").count() == 20


@pytest.fixture
def tables(spark: SparkSession) -> Iterator[str]:
    yield "jobs_tables"
    for name in ("jobs_tables_in", "jobs_tables_out"):
        spark.sql(f"DROP TABLE IF EXISTS {name}")


def test_run_finds_a_wrong_column_before_anything_is_written(spark: SparkSession, songs: Path) -> None:
    with pytest.raises(ColumnError, match=r"no column 'txt'.*Did you mean 'text'\?"):
        run(spark, songs, stages=[{"DocumentAssembler": {"inputCol": "txt"}}])
    with pytest.raises(AnalysisException, match="finished_intents"):
        run(spark, songs, write={"columns": ["finished_intents"]})
    assert not (songs / "out").exists()


@pytest.mark.parametrize(("value", "is_fused"), [("true", True), ("True", True), ("FALSE", False), ("False", False)])
def test_settings_are_read_in_any_case(spark: SparkSession, value: str, is_fused: bool) -> None:
    spark.conf.set(FUSE_SETTING, value)
    try:
        first = DocumentAssembler().transform(spark.createDataFrame([("x",)], "text string"))
        assert (len(chain_of(first).steps) == 1) == is_fused
    finally:
        spark.conf.unset(FUSE_SETTING)
