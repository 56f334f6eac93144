"""LocalPipeline: no JVM, plain answers, clear refusals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pyspark.ml import Pipeline, PipelineModel
from pyspark.sql import SparkSession

from sparktasks import DocumentAssembler, LocalPipeline, RegexTokenizer, TextClassifier
from sparktasks.errors import ColumnError, ParamError, SavedModelError
from sparktasks.spark.persist import FORMAT_VERSION, load_stage
from tests.counting import Logger

Find = Callable[[str], str]


def stages(bundle: Find) -> list[object]:
    return [DocumentAssembler(), TextClassifier.pretrained(bundle("bert-text-classification"), topK=2)]


@pytest.fixture
def saved(spark: SparkSession, bundle: Find, tmp_path: Path) -> Path:
    model = Pipeline(stages=stages(bundle)).fit(spark.createDataFrame([("a",)], "text string"))  # type: ignore[arg-type]
    model.write().overwrite().save(str(tmp_path / "model"))
    return tmp_path / "model"


def test_saved_pipeline_runs_without_java(saved: Path, bundle: Find) -> None:
    code = (
        f"from sparktasks import LocalPipeline\nprint(LocalPipeline.load({str(saved)!r}).annotate('play "
        "music')['category'])"
    )
    environment = {key: value for key, value in os.environ.items() if key != "JAVA_HOME"} | {
        "PATH": str(Path(sys.executable).parent)
    }
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.stdout.strip() == str(LocalPipeline(stages(bundle)).annotate("play music")["category"]), done.stderr


def test_model_list_and_saved_folder_are_the_same_pipeline(saved: Path, bundle: Find) -> None:
    answers = [
        LocalPipeline(source).annotate(["play music", ""])
        for source in (PipelineModel.load(str(saved)), stages(bundle))
    ]
    assert answers[0] == answers[1] == LocalPipeline.load(saved).annotate(["play music", ""])
    assert [len(answer["category"]) for answer in answers[0]] == [2, 0]


def test_newer_format_is_refused_by_name(saved: Path) -> None:
    stage = next((saved / "stages").iterdir())
    part = next((stage / "metadata").glob("part-*"))
    metadata = json.loads(part.read_text())
    part.write_text(json.dumps(metadata | {"formatVersion": FORMAT_VERSION + 1}))
    with pytest.raises(SavedModelError, match=f"saved in format {FORMAT_VERSION + 1}.*reads up to {FORMAT_VERSION}"):
        load_stage(stage)
    part.write_text(json.dumps(metadata | {"class": "os.system"}))
    with pytest.raises(SavedModelError, match="only stages of sparktasks"):
        load_stage(stage)
    with pytest.raises(SavedModelError, match="not a saved stage"):
        LocalPipeline.load(saved.parent)


def test_stage_is_loaded_by_its_own_class(saved: Path) -> None:
    stage = next((saved / "stages").glob("*DocumentAssembler*"))
    with pytest.raises(SavedModelError, match="holds a DocumentAssembler, not a TextClassifier"):
        TextClassifier.load(str(stage))
    with pytest.raises(SavedModelError, match="only the annotators of sparktasks itself"):
        Logger().save(str(saved / "own"))


def test_pipeline_that_was_not_fitted_is_refused(bundle: Find) -> None:
    with pytest.raises(ParamError, match="is a Pipeline that was not fitted"):
        LocalPipeline(Pipeline(stages=[DocumentAssembler()]))
    assert LocalPipeline(DocumentAssembler()).annotate("a") == {"document": ["a"]}


def test_saving_twice_wants_overwrite(saved: Path, bundle: Find) -> None:
    stage = DocumentAssembler()
    stage.save(str(saved / "single"))
    with pytest.raises(Exception, match="already exists"):
        stage.save(str(saved / "single"))


def test_loaded_model_can_be_saved_over_itself(saved: Path, bundle: Find) -> None:
    files = {path.name: path.read_bytes() for path in saved.rglob("bundle/*")}
    assert "model.onnx" in files
    PipelineModel.load(str(saved)).write().overwrite().save(str(saved))
    assert {path.name: path.read_bytes() for path in saved.rglob("bundle/*")} == files
    assert LocalPipeline.load(saved).annotate("play music") == LocalPipeline(stages(bundle)).annotate("play music")


def test_slash_is_text_not_a_path(bundle: Find) -> None:
    local = LocalPipeline(stages(bundle))
    for text in ("/etc/passwd", "and/or", str(Path(__file__))):
        assert local.annotate(text)["document"] == [text]


def test_batches_equal_single_texts(bundle: Find) -> None:
    local = LocalPipeline([DocumentAssembler(), RegexTokenizer()])
    texts = [f"text number {index}" for index in range(2000)]
    assert local.annotate(texts) == [local.annotate(text) for text in texts]
    assert local.annotate([]) == []


def test_inputs_are_asked_for_by_name() -> None:
    local = LocalPipeline([DocumentAssembler(inputCols=["a", "b"], outputCols=["x", "y"])])
    with pytest.raises(ParamError, match="reads 'a', 'b'; give a dict with these keys, not str"):
        local.annotate("text")
    with pytest.raises(ColumnError, match="no value for 'b'"):
        local.annotate({"a": "text"})
