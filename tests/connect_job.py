"""Run as a program: what the suite asks of a local Spark Connect session, printed as one line of JSON."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ["PYSPARK_PYTHON"] = sys.executable

from pyspark.ml import PipelineModel
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from sparktasks import DocumentAssembler, TextClassifier
from sparktasks.spark import delivery
from tests.counting import Log, Logger, pipeline
from tests.spark.test_fusion import ACTIONS, NAMES, ROWS

BUNDLE = Path(__file__).parent / "bundles" / "bert-text-classification"
SENT = ["play music", "book a table in lisbon", "what is the weather", "play music"]


def counts(spark: SparkSession, folder: Path) -> dict[str, Any]:
    """Run each action on a four-stage pipeline and report the rows each kernel saw and the number of workers."""
    found = {}
    df = spark.range(0, ROWS, 1, 1).select(
        "id", F.concat(F.lit("text "), "id").alias("text"), (F.col("id") % 4).alias("part")
    )
    for number, (name, action) in enumerate(
        {**ACTIONS, "filter on another column": lambda out: out.filter("id < 10").collect()}.items()
    ):
        log = Log(folder / f"log{number}")
        action(pipeline(log).fit(df).transform(df))
        found[name] = [log.rows(), log.workers()]
    return found


def cached(spark: SparkSession, folder: Path) -> dict[str, int]:
    """Count what runs when a stage follows a cached frame."""
    log = Log(folder / "cached")
    df = spark.range(0, ROWS, 1, 1).select(F.concat(F.lit("text "), "id").alias("text"))
    out = pipeline(log).fit(df).transform(df).cache()
    out.count()
    Logger(inputCols="c", outputCol="d", log=str(log.path)).transform(out).select("d").collect()
    out.unpersist()
    return log.rows()


def streamed(spark: SparkSession, folder: Path) -> list[Any]:
    """Run the pipeline on a stream from Parquet into Parquet; report kernels' rows, the number of workers and of rows
    written."""
    log = Log(folder / "streamed")
    spark.range(0, ROWS, 1, 1).select("id", F.concat(F.lit("text "), "id").alias("text")).write.parquet(
        str(folder / "in")
    )
    stream = spark.readStream.schema("id long, text string").parquet(str(folder / "in"))
    out = pipeline(log).fit(stream).transform(stream).select("id", "b.result")
    query = (
        out.writeStream.format("parquet")
        .option("checkpointLocation", str(folder / "checkpoint"))
        .trigger(availableNow=True)
    )
    query.start(str(folder / "out")).awaitTermination()
    return [log.rows(), log.workers(), spark.read.parquet(str(folder / "out")).distinct().count()]


def sent(spark: SparkSession) -> dict[str, Any]:
    """Classify texts with a model that must be sent, three stages sharing it; report what was sent, and the answers."""
    ways: list[str] = []
    original = delivery._sent
    delivery._sent = lambda bundle, way, session: (ways.append(way), original(bundle, way, session))[1]  # type: ignore[misc,assignment]
    stages = [TextClassifier.pretrained(BUNDLE, topK=top, outputCol=f"top{top}") for top in (1, 2, 3)]
    df = spark.createDataFrame([(text,) for text in SENT], "text string")
    rows = (
        PipelineModel([DocumentAssembler(), *stages])
        .transform(df)
        .select("text", "top3.result", "top3.score")
        .collect()
    )
    delivery._sent = original
    return {"ways": ways, "rows": [list(row) for row in rows]}


def names(spark: SparkSession) -> list[list[str]]:
    """Read and write columns of awkward names, and report the columns that came out."""
    found = []
    for name in NAMES:
        df = spark.createDataFrame([("one",)], [name])
        out = DocumentAssembler(inputCol=name, outputCol=f"{name}.out").transform(df)
        row = out.head()
        assert row is not None
        assert row[1][0].result == "one"
        found.append(out.columns)
    return found


def saved(spark: SparkSession, folder: Path) -> list[bool]:
    """Save with overwrite and load a stage and a pipeline, and compare what they give."""
    df = spark.createDataFrame([("play music",), ("",), (None,)], "text string")
    model = PipelineModel([DocumentAssembler(), TextClassifier.pretrained(BUNDLE, topK=None)])
    for _ in range(2):
        model.write().overwrite().save(str(folder / "pipeline"))
        model.stages[1].write().overwrite().save(str(folder / "stage"))
    wanted = model.transform(df).collect()
    loaded = PipelineModel.load(str(folder / "pipeline"))
    stage = TextClassifier.load(str(folder / "stage"))
    return [
        loaded.transform(df).collect() == wanted,
        PipelineModel([model.stages[0], stage]).transform(df).collect() == wanted,
    ]


def main(folder: Path) -> None:
    """Run everything on a local Connect server."""
    spark = SparkSession.builder.remote("local[2]").getOrCreate()
    metadata = DocumentAssembler().transform(spark.createDataFrame([("x",)], "text string")).schema["document"].metadata
    result = {
        "counts": counts(spark, folder),
        "cached": cached(spark, folder),
        "names": names(spark),
        "sent": sent(spark),  # before anything else sends this model
        "saved": saved(spark, folder),
        "streamed": streamed(spark, folder / "stream"),
        "metadata": metadata,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
