"""A folder with a dictionary in it is used, saved and loaded as a model is."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from pyspark.ml import Pipeline, PipelineModel
from pyspark.sql import SparkSession

import sparktasks
from sparktasks import DocumentAssembler, LocalPipeline
from sparktasks.errors import DeliveryError, ParamError, SavedModelError
from tests.dictionary import Dictionary, write_dictionary

WORDS = {"jam": "music", "rain": "weather", "fado": "music"}
TEXTS = ["jam", "nothing", None, "fado", "rain"]
MEANINGS = [["music"], [], [], ["music"], ["weather"]]


@pytest.fixture
def stage(tmp_path: Path) -> Dictionary:
    return Dictionary().setFolder(write_dictionary(tmp_path / "dictionary", WORDS))


def test_a_dictionary_is_read_on_spark_and_locally(spark: SparkSession, stage: Dictionary) -> None:
    model = PipelineModel([DocumentAssembler(), stage])
    df = spark.createDataFrame(list(enumerate(TEXTS)), "id int, text string")
    rows = model.transform(df).orderBy("id").select("output.result").collect()
    assert [row.result for row in rows] == MEANINGS
    assert [row["output"] for row in LocalPipeline(model).annotate(TEXTS)] == MEANINGS


def test_a_dictionary_is_saved_and_loaded(
    spark: SparkSession, stage: Dictionary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sparktasks, "Dictionary", Dictionary, raising=False)
    monkeypatch.setattr(sparktasks, "__all__", [*sparktasks.__all__, "Dictionary"])
    df = spark.createDataFrame([("jam",)], "text string")
    model = Pipeline(stages=[DocumentAssembler(), stage]).fit(df)  # type: ignore[arg-type]
    model.save(str(tmp_path / "model"))
    shutil.rmtree(stage.getFolder().folder)
    loaded = PipelineModel.load(str(tmp_path / "model"))
    assert loaded.stages[1].getFolder().hash == stage.getFolder().hash
    assert loaded.transform(df).head()["output"][0].result == "music"  # type: ignore[index]
    assert LocalPipeline.load(tmp_path / "model").annotate("rain")["output"] == ["weather"]
    saved = next((tmp_path / "model" / "stages").glob("*Dictionary*"))
    shutil.rmtree(saved / "bundle")
    with pytest.raises(SavedModelError, match="was saved with files, but its folder 'bundle' is missing"):
        LocalPipeline.load(tmp_path / "model")


def test_a_dictionary_that_changed_is_not_used_or_saved(
    spark: SparkSession, stage: Dictionary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sparktasks, "Dictionary", Dictionary, raising=False)
    (stage.getFolder().folder / "words.tsv").write_text("jam\tfood", encoding="utf-8")
    with pytest.raises(DeliveryError, match="holds other files than when the stage was made"):
        LocalPipeline([DocumentAssembler(), stage]).annotate("jam")
    with pytest.raises(DeliveryError, match="holds other files"):
        stage.save(str(tmp_path / "stage"))


def test_without_a_dictionary_the_stage_says_what_it_needs() -> None:
    with pytest.raises(ParamError, match="it has no files"):
        LocalPipeline([DocumentAssembler(), Dictionary()])
