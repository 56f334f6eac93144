"""The same promises on Spark Connect: a local server in a process of its own, a client without SparkContext."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyspark
import pytest

from sparktasks import DocumentAssembler, LocalPipeline, TextClassifier
from tests.connect_job import BUNDLE, SENT
from tests.spark.test_fusion import ACTIONS, NAMES, ROWS

pytestmark = pytest.mark.skipif(pyspark.__version__ < "4", reason="local Connect servers need Spark 4")


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("connect")
    done = subprocess.run(
        [sys.executable, "-m", "tests.connect_job", str(folder)],
        capture_output=True,
        text=True,
        timeout=400,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("action", ACTIONS)
def test_kernels_run_once_per_row_in_one_worker_on_connect(result: dict[str, Any], action: str) -> None:
    rows, workers = result["counts"][action]
    assert set(rows.values()) == {ROWS}
    assert {"a", "b"} <= set(rows)
    assert workers == 1


def test_filter_on_another_column_reaches_the_scan_on_connect(result: dict[str, Any]) -> None:
    assert set(result["counts"]["filter on another column"][0].values()) == {10}


def test_cached_frame_is_not_run_again_on_connect(result: dict[str, Any]) -> None:
    assert result["cached"] == dict.fromkeys("abcd", ROWS)


def test_any_column_name_is_read_and_written_on_connect(result: dict[str, Any]) -> None:
    assert result["names"] == [[name, f"{name}.out"] for name in NAMES]


def test_stages_and_pipelines_save_and_load_on_connect(result: dict[str, Any]) -> None:
    assert result["saved"] == [True, True]


def test_columns_carry_their_annotator_type_on_connect(result: dict[str, Any]) -> None:
    assert result["metadata"] == {"annotatorType": "document"}


def test_kernels_run_once_per_row_in_streaming_on_connect(result: dict[str, Any]) -> None:
    assert result["streamed"] == [{"a": ROWS, "b": ROWS, "c": ROWS}, 1, ROWS]


def test_a_model_is_sent_as_an_artifact_once_and_gives_what_one_machine_gives(result: dict[str, Any]) -> None:
    assert result["sent"]["ways"] == ["artifact"]
    stages = [DocumentAssembler(), TextClassifier.pretrained(BUNDLE, topK=3)]
    found = LocalPipeline(stages).fullAnnotate(SENT)
    for (text, labels, scores), wanted, cell in zip(result["sent"]["rows"], SENT, found, strict=True):
        assert text == wanted
        assert [each.result for each in cell["category"]] == labels
        np.testing.assert_allclose([each.score for each in cell["category"]], scores, atol=1e-5)
