"""Run as a program: a driver of a cluster; ``python -m tests.cluster.job MASTER SCENARIO FOLDER`` prints one line of
JSON."""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

from pyspark import cloudpickle
from pyspark.ml import PipelineModel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from sparktasks import DocumentAssembler, TextClassifier, TextEmbedder, TextGenerator
from sparktasks.runtime.bundle import open_bundle
from sparktasks.runtime.quantize import quantize
from sparktasks.spark import delivery

BUNDLES = Path(__file__).parents[1] / "bundles"
WORDS = ["play", "some", "music", "book", "a", "table", "in", "lisbon", "weather", "tomorrow", "the", "of"]


def texts(spark: SparkSession, rows: int, partitions: int) -> DataFrame:
    """Return rows of texts of one to forty words, all different."""
    words = F.array(*map(F.lit, WORDS))
    picked = F.transform(
        F.sequence(F.lit(0), F.col("id") % 40), lambda place: words[(place * 7 + F.col("id") * 5) % len(WORDS)]
    )
    return spark.range(0, rows, 1, partitions).select(
        "id", F.concat_ws(" ", picked, F.col("id").cast("string")).alias("text")
    )


def pipeline() -> PipelineModel:
    """Three stages that share one bundle, and a fourth with another."""
    bundle = BUNDLES / "bert-text-classification"
    classifiers = [TextClassifier.pretrained(bundle, topK=top, outputCol=f"top{top}") for top in (1, 2, 3)]
    return PipelineModel([DocumentAssembler(), *classifiers, TextEmbedder.pretrained(BUNDLES / "bert-embedding-mean")])


def answers(df: DataFrame) -> list[list[Any]]:
    """Run the pipeline and return plain values: id, text, labels, scores, vectors."""
    found = (
        pipeline()
        .transform(df)
        .select("id", "text", "top1.result", "top3.result", "top3.score", "embeddings.embeddings")
        .collect()
    )
    return sorted([list(row) for row in found])


def parity(spark: SparkSession, folder: Path) -> dict[str, Any]:
    """Run the pipeline twice while it is held once more, then let it go; count what was sent and what was released."""
    sent: list[str] = []
    released: list[int] = []
    send, release = delivery._sent, delivery._unpersist
    delivery._sent = lambda bundle, way, session: (sent.append(way), send(bundle, way, session))[1]  # type: ignore[misc,assignment]
    delivery._unpersist = lambda parts: (release(parts), released.append(len(parts)))[0]  # type: ignore[misc,assignment]
    held = pipeline()
    held.transform(texts(spark, 1, 1))
    df = texts(spark, 200, 8)
    first, second = answers(df), answers(df)
    counts = [len(sent), len(released)]
    del held
    gc.collect()
    deadline = time.monotonic() + 10
    while len(released) < 2 and sent[0] == "broadcast" and time.monotonic() < deadline:
        time.sleep(0.1)
    third = answers(df)
    return {
        "rows": first,
        "again": first == second == third,
        "sent": sent[: counts[0]],
        "counts": [*counts, len(released)],
    }


def dictionary(spark: SparkSession, folder: Path) -> dict[str, Any]:
    """Look words up in a dictionary that only the driver has; the same one twice, under other names."""
    from tests import dictionary as module

    # The executors have no tests to import the stage from.
    cloudpickle.register_pickle_by_value(module)
    stages: list[Any] = [DocumentAssembler()]
    for name in ("one", "two"):
        place = module.write_dictionary(folder / name, {word: word.upper() for word in WORDS})
        stages.append(module.Dictionary(outputCol=name).setFolder(place))
    df = spark.createDataFrame([(word,) for word in WORDS], "text string").repartition(4)
    rows = PipelineModel(stages).transform(df).select("text", "one.result", "two.result").collect()
    return {"rows": sorted([list(row) for row in rows]), "words": WORDS}


def _kill(pattern: str, ready: Callable[[], bool]) -> int:
    """Kill one process of this cluster whose command line has a text, once something is written."""
    while not ready():
        time.sleep(0.1)
    mine = os.environ["CLUSTER_FOLDER"]
    for place in sorted(
        Path("/proc").glob("[0-9]*"), key=lambda each: -int(each.name)
    ):  # workers are younger than their daemon
        try:
            command = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            around = (place / "environ").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if pattern in command and mine in around:
            os.kill(int(place.name), signal.SIGKILL)
            return int(place.name)
    raise ProcessLookupError(pattern)


def classifier(folder: Path, int8: bool = False) -> TextClassifier:
    """Return a classifier; as an int8 model a text's scores depend on the texts it runs with, and those on the order of
    a shuffle."""
    bundle = BUNDLES / "bert-text-classification"
    return TextClassifier.pretrained(
        quantize(open_bundle(bundle), folder / "int8").folder if int8 else bundle, topK=None, outputCol="out"
    )


def drawing() -> TextGenerator:
    """Return a generator that draws."""
    return TextGenerator.pretrained(
        BUNDLES / "gpt2-text-generation", maxNewTokens=8, doSample=True, numReturnSequences=2, outputCol="out"
    )


def killed(spark: SparkSession, folder: Path, pattern: str, stage: Any, rows: int = 6000) -> dict[str, Any]:
    """Kill a process while annotators run between a shuffle (the first stage) and a round-robin repartition."""
    shuffled = texts(spark, rows, 8).repartition(8, "text")
    annotated = PipelineModel([DocumentAssembler(), stage]).transform(shuffled)
    victim: list[int] = []
    tracker = spark.sparkContext.statusTracker()

    def busy() -> bool:
        stages = [tracker.getStageInfo(stage) for stage in tracker.getActiveStageIds()]
        return any(
            stage is not None and stage.stageId > 0 and stage.numTasks == 8 and stage.numCompletedTasks >= 2
            for stage in stages
        )

    thread = Thread(target=lambda: victim.append(_kill(pattern, busy)), daemon=True)
    thread.start()
    annotated.select("id", "out.result", "out.score").repartition(6).write.parquet(str(folder / "out"))
    thread.join(timeout=1)
    out = spark.read.parquet(str(folder / "out")).collect()
    labels = {row[0]: list(zip(row[1], row[2], strict=True)) for row in out}
    calm = {
        row[0]: list(zip(row[1], row[2], strict=True))
        for row in annotated.select("id", "out.result", "out.score").collect()
    }
    worst = max(abs(a - b) for key in calm for (_, a), (_, b) in zip(calm[key], labels.get(key, []), strict=False))
    same = all([name for name, _ in calm[key]] == [name for name, _ in labels.get(key, [])] for key in calm)
    return {
        "killed": victim,
        "rows": len(out),
        "distinct": len(labels),
        "wanted": rows,
        "same_labels": same,
        "worst": worst,
    }


def large(spark: SparkSession, folder: Path) -> dict[str, Any]:
    """Classify with a model of more than 2 GiB; report what the driver and the executors' workers took."""
    from tests.large import make_large

    size = int(2.1 * 2**30)
    bundle = make_large(BUNDLES / "bert-text-classification", folder / "large", size)
    before = _peak(spark)
    model = PipelineModel([DocumentAssembler(), TextClassifier.pretrained(bundle, topK=None)])
    rows = model.transform(texts(spark, 40, 4)).select("id", "text", "category.result", "category.score").collect()
    return {"rows": sorted([list(row) for row in rows]), "bytes": size, "driver": _peak(spark) - before}


def _peak(spark: SparkSession) -> int:
    """Return the largest resident set that driver and JVM ever had, in bytes."""
    pids = [os.getpid(), spark.sparkContext._gateway.proc.pid]
    lines = [
        line
        for pid in pids
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith("VmHWM")
    ]
    return sum(int(line.split()[1]) * 1024 for line in lines)


SCENARIOS: dict[str, Callable[[SparkSession, Path], dict[str, Any]]] = {
    "parity": parity,
    "dictionary": dictionary,
    "large": large,
    "executor": lambda spark, folder: killed(spark, folder, "CoarseGrainedExecutorBackend", classifier(folder)),
    "executor-int8": lambda spark, folder: killed(
        spark, folder, "CoarseGrainedExecutorBackend", classifier(folder, int8=True)
    ),
    "executor-drawing": lambda spark, folder: killed(
        spark, folder, "CoarseGrainedExecutorBackend", drawing(), rows=1600
    ),
    "worker": lambda spark, folder: killed(spark, folder, "pyspark.daemon", classifier(folder)),
}


def main(master: str, scenario: str, folder: Path, *settings: str) -> None:
    """Run one scenario on a cluster."""
    fixed = [
        "spark.driver.host=127.0.0.1",
        "spark.driver.bindAddress=127.0.0.1",
        "spark.ui.enabled=false",
        "spark.log.level=ERROR",
    ]
    builder = SparkSession.builder.master(master).appName(scenario)
    for setting in [*fixed, "spark.executor.memory=512m", "spark.sql.shuffle.partitions=4", *settings]:
        builder = builder.config(*setting.split("=", 1))
    spark = builder.getOrCreate()
    try:
        print(json.dumps(SCENARIOS[scenario](spark, folder)))
    finally:
        spark.stop()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), *sys.argv[4:])
