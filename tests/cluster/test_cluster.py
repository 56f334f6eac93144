"""On a standalone cluster of two workers: the output of one machine, models sent once, and no row lost when processes
die."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparktasks import DocumentAssembler, LocalPipeline, TextClassifier
from tests.cluster.job import BUNDLES, pipeline
from tests.cluster.standalone import REPOSITORY, Cluster, standalone


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with standalone(tmp_path_factory.mktemp("cluster")) as running:
        yield running


def run(
    cluster: Cluster, scenario: str, folder: Path, *settings: str, python: str = sys.executable
) -> subprocess.CompletedProcess[str]:
    """Run a driver program on the cluster, whose executors run ``python``."""
    known = {
        "CLUSTER_FOLDER": str(cluster.folder),
        "SPARKTASKS_CACHE": str(folder / "driver"),
        "PYSPARK_PYTHON": python,
    }
    command = [sys.executable, "-m", "tests.cluster.job", cluster.master, scenario, str(folder), *settings]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=400, cwd=REPOSITORY, env=os.environ | known, check=False
    )


def drive(
    cluster: Cluster, scenario: str, folder: Path, *settings: str, python: str = sys.executable
) -> dict[str, Any]:
    """Run a driver program and return what it printed."""
    done = run(cluster, scenario, folder, *settings, python=python)
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def parity(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return drive(cluster, "parity", tmp_path_factory.mktemp("parity"))


def test_a_cluster_gives_what_one_machine_gives(parity: dict[str, Any]) -> None:
    assert parity["again"]
    assert [row[0] for row in parity["rows"]] == list(range(200))
    found = LocalPipeline(pipeline()).fullAnnotate([row[1] for row in parity["rows"]])
    assert len({cell["top1"][0].result for cell in found}) > 1, "one label for all texts: this test could not fail"
    for cell, (_, _, best, labels, scores, vectors) in zip(found, parity["rows"], strict=True):
        assert [each.result for each in cell["top1"]] == best
        assert [each.result for each in cell["top3"]] == labels
        np.testing.assert_allclose([each.score for each in cell["top3"]], scores, atol=1e-5)
        np.testing.assert_allclose(cell["embeddings"][0].embeddings, vectors[0], atol=1e-5)


def test_a_bundle_is_sent_and_written_once_whatever_uses_it(cluster: Cluster, parity: dict[str, Any]) -> None:
    assert parity["sent"] == ["broadcast", "broadcast"]  # two bundles; four stages, three pipelines, two of them run
    for worker, root in zip(("worker1", "worker2"), cluster.roots, strict=True):
        entries = sorted(path.name for path in root.glob("*/bundles/*"))
        assert len(entries) == 2
        made = [line for line in cluster.said("made ") if line.startswith(worker) and "/bundles/" in line]
        assert sorted(line.rpartition("/")[2] for line in made) == entries


def test_a_folder_without_a_model_is_sent_once_and_kept_as_bundles_are(cluster: Cluster, tmp_path: Path) -> None:
    before = {path.name for root in cluster.roots for path in root.glob("*/bundles/*")}
    found = drive(cluster, "dictionary", tmp_path)
    assert found["rows"] == sorted([[word, [word.upper()], [word.upper()]] for word in found["words"]])
    kept = {path.name for root in cluster.roots for path in root.glob("*/bundles/*")} - before
    assert len(kept) == 1, "two folders with one content are one entry of the store"


def test_broadcasts_are_released_when_the_last_user_goes(parity: dict[str, Any]) -> None:
    sent, before, after = parity["counts"]
    assert (sent, before) == (2, 0)
    assert after >= 2


@pytest.mark.parametrize("victim", ["executor", "worker"])
def test_nothing_is_lost_or_doubled_when_a_process_is_killed(cluster: Cluster, victim: str, tmp_path: Path) -> None:
    found = drive(cluster, victim, tmp_path)
    assert found["killed"], "nothing was killed: the job was over too soon"
    assert found["rows"] == found["distinct"] == found["wanted"]
    assert found["same_labels"]
    assert found["worst"] < 1e-5


def test_drawn_texts_are_the_same_after_a_retry(cluster: Cluster, tmp_path: Path) -> None:
    found = drive(cluster, "executor-drawing", tmp_path)
    assert found["killed"], "nothing was killed: the job was over too soon"
    assert found["rows"] == found["distinct"] == found["wanted"]
    assert found["same_labels"]


def test_scores_that_depend_on_companions_move_no_rows(cluster: Cluster, tmp_path: Path) -> None:
    found = drive(cluster, "executor-int8", tmp_path)
    assert found["killed"], "nothing was killed: the job was over too soon"
    assert found["rows"] == found["distinct"] == found["wanted"]


def test_encrypted_disks_get_files_instead_of_broadcasts(
    cluster: Cluster, parity: dict[str, Any], tmp_path: Path
) -> None:
    found = drive(cluster, "parity", tmp_path, "spark.io.encryption.enabled=true")
    assert found["sent"] == ["file", "file"]
    assert [row[:4] for row in found["rows"]] == [row[:4] for row in parity["rows"]]


@pytest.mark.parametrize("package", ["sparktasks", "tokenizers", "onnxruntime"])
def test_an_executor_without_a_package_names_it_and_itself(cluster: Cluster, package: str, tmp_path: Path) -> None:
    done = run(cluster, "parity", tmp_path, f"spark.executorEnv.LACKING={package}", "spark.task.maxFailures=1")
    assert done.returncode != 0
    assert package in done.stderr
    assert socket.gethostname() in done.stderr
    assert "--archives" in done.stderr or f"package '{package}'" in done.stderr


def test_a_bundle_of_more_than_two_gigabytes_is_sent_whole(cluster: Cluster, tmp_path: Path) -> None:
    found = drive(
        cluster, "large", tmp_path, "spark.driver.memory=1g", "spark.executorEnv.SPARKTASKS_SHARE_BYTES=1000000000000"
    )
    assert found["driver"] < found["bytes"], "the driver held the whole model in memory"
    stages = [DocumentAssembler(), TextClassifier.pretrained(BUNDLES / "bert-text-classification", topK=None)]
    cells = LocalPipeline(stages).fullAnnotate([row[1] for row in found["rows"]])
    assert len(cells) == 40
    for cell, (_, _, labels, scores) in zip(cells, found["rows"], strict=True):
        assert [each.result for each in cell["category"]] == labels
        np.testing.assert_allclose([each.score for each in cell["category"]], scores, atol=1e-5)
