"""Structured Streaming: each row exactly once in the output, whatever stops the query."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from pyspark.ml import PipelineModel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming.query import StreamingQuery

from sparktasks import DocumentAssembler, LocalPipeline, TextClassifier
from tests.counting import Log, Logger

FILES, EACH = 8, 25


def model(bundle: Callable[[str], str], log: Log) -> PipelineModel:
    """Return an assembler, a stage that counts, and a classifier."""
    classifier = TextClassifier.pretrained(bundle("bert-text-classification"))
    return PipelineModel([DocumentAssembler(), Logger(outputCol="a", log=str(log.path)), classifier])


def write_files(folder: Path, numbers: range) -> None:
    """Write one file of rows for each number; later ones are newer."""
    folder.mkdir(exist_ok=True)
    for number in numbers:
        rows = range(number * EACH, (number + 1) * EACH)
        (folder / f"part{number}.json").write_text(
            "\n".join(f'{{"id": {row}, "text": "play music number {row}"}}' for row in rows)
        )


def start(stream: DataFrame, folder: Path, **trigger: object) -> StreamingQuery:
    """Write a stream to Parquet with a checkpoint."""
    writer = (
        stream.writeStream.format("parquet").option("checkpointLocation", str(folder / "checkpoint")).trigger(**trigger)
    )  # type: ignore[arg-type]
    return writer.start(str(folder / "out"))


def test_a_query_that_was_stopped_goes_on_where_it_was(
    spark: SparkSession, bundle: Callable[[str], str], tmp_path: Path
) -> None:
    write_files(tmp_path / "in", range(FILES))
    log = Log(tmp_path / "log")
    pipeline = model(bundle, log)
    stream = (
        spark.readStream.schema("id long, text string").option("maxFilesPerTrigger", "1").json(str(tmp_path / "in"))
    )
    annotated = pipeline.transform(stream).select("id", "text", "category.result", "category.score")
    first = start(annotated, tmp_path, processingTime="0 seconds")
    deadline = time.monotonic() + 60
    while log.rows().get("a", 0) < 2 * EACH and time.monotonic() < deadline:
        time.sleep(0.02)
    first.stop()
    done = spark.read.parquet(str(tmp_path / "out")).count()
    assert 0 < done < FILES * EACH, "the query was to stop in the middle"
    write_files(tmp_path / "in", range(FILES, FILES + 1))
    start(annotated, tmp_path, availableNow=True).awaitTermination()
    rows = sorted(spark.read.parquet(str(tmp_path / "out")).collect())
    assert [row["id"] for row in rows] == list(range((FILES + 1) * EACH))
    local = LocalPipeline(PipelineModel([pipeline.stages[0], pipeline.stages[2]])).annotate(
        [row["text"] for row in rows]
    )
    assert [row["result"] for row in rows] == [each["category"] for each in local]


def test_the_rate_source_into_memory(spark: SparkSession, bundle: Callable[[str], str], tmp_path: Path) -> None:
    log = Log(tmp_path / "log")
    rate = spark.readStream.format("rate-micro-batch").option("rowsPerBatch", "20").option("numPartitions", "1").load()
    stream = (
        model(bundle, log)
        .transform(rate.selectExpr("value as id", "concat('music ', value) as text"))
        .select("id", "category.result")
    )
    query = stream.writeStream.format("memory").queryName("annotated").start()
    deadline = time.monotonic() + 60
    while spark.table("annotated").count() < 40 and time.monotonic() < deadline:
        time.sleep(0.1)
    query.stop()
    rows = sorted(spark.table("annotated").collect())
    assert len(rows) >= 40
    assert [row["id"] for row in rows] == list(range(len(rows)))
    assert all(len(row["result"]) == 1 for row in rows)
