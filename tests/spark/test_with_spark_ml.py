"""Our stages and the JVM's in one Pipeline."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.classification import LogisticRegression
from pyspark.ml.evaluation import BinaryClassificationEvaluator
from pyspark.ml.tuning import CrossValidator, ParamGridBuilder
from pyspark.sql import DataFrame, SparkSession

from sparktasks import DocumentAssembler, LocalPipeline, TextEmbedder, VectorFinisher
from sparktasks.errors import ParamError


@pytest.fixture
def df(spark: SparkSession) -> DataFrame:
    rows = [
        (f"{word} {index}", float(word == "play music"))
        for index in range(12)
        for word in ("play music", "pay the bill")
    ]
    return spark.createDataFrame(rows, "text string, label double")


def stages(bundle: Callable[[str], str]) -> list[object]:
    return [
        DocumentAssembler(),
        TextEmbedder.pretrained(bundle("bert-embedding-mean")),
        VectorFinisher(),
        LogisticRegression(maxIter=5),
    ]


def test_pipeline_with_logistic_regression_fits_saves_and_loads(
    spark: SparkSession, bundle: Callable[[str], str], df: DataFrame, tmp_path: Path
) -> None:
    model = Pipeline(stages=stages(bundle)).fit(df)  # type: ignore[arg-type]
    predicted = model.transform(df).select("text", "prediction", "probability").collect()
    assert sum(row["prediction"] == ("music" in row["text"]) for row in predicted) > 20
    model.write().overwrite().save(str(tmp_path / "model"))
    loaded = PipelineModel.load(str(tmp_path / "model"))
    assert loaded.transform(df).select("text", "prediction", "probability").collect() == predicted
    with pytest.raises(ParamError, match="LogisticRegressionModel, which needs Spark"):
        LocalPipeline(loaded)


def test_cross_validator_tunes_both_sides(bundle: Callable[[str], str], df: DataFrame) -> None:
    every = stages(bundle)
    grid = ParamGridBuilder().addGrid(every[1].pooling, ["mean", "cls"]).addGrid(every[3].regParam, [0.0, 0.1]).build()  # type: ignore[attr-defined]
    validator = CrossValidator(
        estimator=Pipeline(stages=every),  # type: ignore[arg-type]
        estimatorParamMaps=grid,
        evaluator=BinaryClassificationEvaluator(),
        numFolds=2,
        seed=1,
    )
    best = validator.fit(df)
    assert len(best.avgMetrics) == 4
    assert best.transform(df).count() == 24
