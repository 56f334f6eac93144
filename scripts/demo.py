"""Annotate a few requests with both starter bundles: intents and parts of speech."""

from __future__ import annotations

import os
import sys

os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")

from pyspark.ml import Pipeline
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from sparktasks import DocumentAssembler, RegexTokenizer, TextClassifier, TokenClassifier

REQUESTS = [
    "Book me a table for two at an Italian restaurant tonight",
    "What is the weather going to be like in Lisbon tomorrow?",
    "Please transfer 200 dollars from checking to savings",
    "How do I say good morning in Japanese?",
    "My card was declined at the hotel yesterday",
    "",
    "Set an alarm for half past six",
]


def main(out: str) -> None:
    """Run the pipeline on a local session, show its rows and write them to ``out``."""
    builder = SparkSession.builder.master("local[2]").appName("sparktasks demo")
    for setting in ("spark.ui.enabled", "spark.ui.showConsoleProgress"):
        builder = builder.config(setting, "false")
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    requests = spark.createDataFrame(list(enumerate(REQUESTS)), "id int, text string")
    pipeline = Pipeline(
        stages=[
            DocumentAssembler(inputCol="text", outputCol="document"),
            TextClassifier.pretrained(inputCols=["document"], outputCol="intent", topK=2),
            RegexTokenizer(inputCols=["document"], outputCol="token", pattern=r"\w+|[^\w\s]", gaps=False),
            TokenClassifier.pretrained(inputCols=["document", "token"], outputCol="pos"),
        ]
    )
    annotated = pipeline.fit(requests).transform(requests)
    intents = F.transform("intent", lambda a: F.format_string("%s %.2f", a["result"], a["score"]))
    tags = F.transform("pos", lambda a: F.concat_ws("/", a["metadata"]["word"], a["result"]))
    annotated.select("text", intents.alias("intents"), F.concat_ws(" ", tags).alias("parts of speech")).show(
        truncate=120, vertical=True
    )
    annotated.write.mode("overwrite").parquet(out)
    print(f"wrote {spark.read.parquet(out).count()} rows to {out}")
    spark.stop()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "build/demo")
