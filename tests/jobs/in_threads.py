"""Run as a program: what is asked of a session from a thread that did not start it, on Spark Connect."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ["PYSPARK_PYTHON"] = sys.executable

from pyspark.ml import PipelineModel
from pyspark.sql import SparkSession

from sparktasks import DocumentAssembler, TextClassifier, cli
from tests.conftest import SETTINGS
from tests.jobs.making import BUNDLE, STAGES, texts, write_job, write_lines


def in_threads(spark: SparkSession, folder: Path, can_save: bool) -> dict[str, str]:
    """Run, save and load in a thread; report what came of each, and whether the session still answers."""
    write_lines(folder / "in" / "a.json", texts(range(3)))
    saved = f"file:{folder}/a%20b"  # a place that this process does not see as a path, as s3a: is
    whole = PipelineModel([DocumentAssembler(), TextClassifier.pretrained(BUNDLE, outputCol="intent")])
    whole.write().overwrite().save(str(folder / "pipeline"))
    by_pipeline = {"stages": None, "pipeline": str(folder / "pipeline"), "write": {"path": str(folder / "out2")}}
    tasks: dict[str, Callable[[], object]] = {
        "by URI": lambda: TextClassifier.pretrained(f"file://{BUNDLE}"),
        "save": lambda: TextClassifier.pretrained(f"file://{BUNDLE}").save(saved),
        "load": lambda: TextClassifier.load(saved),
        "job": lambda: cli.main(["run", str(write_job(folder, stages=STAGES))]),
        "pipeline": lambda: cli.main(
            ["run", str(write_job(folder / "second", read={"path": str(folder / "in")}, **by_pipeline))]
        ),
    }
    if not can_save:
        del tasks["save"], tasks["load"]
    outcomes = {}
    for name, task in tasks.items():
        with ThreadPoolExecutor(1) as pool:
            error = pool.submit(task).exception()
        outcomes[name] = "" if error is None else f"{type(error).__name__}: {error}"
    outcomes["session"] = str(spark.range(3).count())
    outcomes["rows"] = str(spark.read.parquet(str(folder / "out")).count())
    return outcomes


if __name__ == "__main__":
    builder = SparkSession.builder.remote("local[1]").config(map=SETTINGS)
    # Copying into the server's own disk is not allowed there.
    print(json.dumps(in_threads(builder.getOrCreate(), Path(sys.argv[1]), can_save=False)))
