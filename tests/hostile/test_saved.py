"""Saved stages that somebody changed: an error of ours that names the folder, nothing from outside of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from sparktasks import LocalPipeline
from sparktasks.errors import BundleError, SavedModelError
from tests.graphs import MEAN_OF_MASKED, write_bundle

STAGE = {
    "class": "sparktasks.TextClassifier",
    "uid": "TextClassifier_1",
    "paramMap": {},
    "formatVersion": 1,
    "model": "model.onnx",
}
PIPELINE = {"class": "pyspark.ml.pipeline.PipelineModel", "uid": "PipelineModel_1", "paramMap": {"stageUids": ["s"]}}
DEEP = "[" * 200_000 + "]" * 200_000


def save(folder: Path, metadata: Any) -> Path:
    (folder / "metadata").mkdir(parents=True)
    text = metadata if isinstance(metadata, str) else json.dumps(metadata)
    (folder / "metadata" / "part-00000").write_text(text + "\n")
    write_bundle(folder / "bundle", MEAN_OF_MASKED)
    return folder


@pytest.mark.parametrize(
    "metadata",
    [
        [],
        "5",
        "not JSON",
        DEEP,
        {},
        STAGE | {"class": 5},
        STAGE | {"class": "os.system"},
        STAGE | {"class": "sparktasks.LocalPipeline"},
        STAGE | {"class": "sparktasks.TASKS"},
        STAGE | {"class": "sparktasks.Annotation"},
        STAGE | {"uid": ["a"]},
        STAGE | {"uid": "../../x"},
        STAGE | {"paramMap": ["a"]},
        STAGE | {"paramMap": None},
        STAGE | {"formatVersion": "new"},
        STAGE | {"formatVersion": 99},
        PIPELINE | {"paramMap": {"stageUids": "abc/../.."}},
        PIPELINE | {"paramMap": {"stageUids": ["x/../../../../other"]}},
        PIPELINE | {"paramMap": {}},
    ],
    ids=str,
)
def test_metadata_of_other_forms_are_refused(metadata: Any, tmp_path: Path) -> None:
    folder = save(tmp_path / "saved", metadata)
    with pytest.raises(SavedModelError, match=str(folder)):
        LocalPipeline.load(folder)


@pytest.mark.parametrize("model", ["../../other/model.onnx", "/etc/passwd", 5, ["model.onnx"]])
def test_the_model_of_a_saved_stage_lies_in_its_folder(model: Any, tmp_path: Path) -> None:
    write_bundle(tmp_path / "other", MEAN_OF_MASKED)
    with pytest.raises((BundleError, SavedModelError)):
        LocalPipeline.load(save(tmp_path / "saved", STAGE | {"model": model}))


def test_a_saved_stage_without_its_model_is_named(tmp_path: Path) -> None:
    folder = save(tmp_path / "saved", STAGE)
    shutil.rmtree(folder / "bundle")
    with pytest.raises(SavedModelError, match="its folder 'bundle' is missing"):
        LocalPipeline.load(folder)
