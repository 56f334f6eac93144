"""Executors whose own Python has none of our packages run a job from an environment that is sent with it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from tests.cluster.standalone import HOME, REPOSITORY, Cluster, standalone
from tests.cluster.test_cluster import drive, run


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a Python without packages."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    return str(folder / "bin" / "python")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pack an environment as docs/running.md says."""
    folder = tmp_path_factory.mktemp("packed")
    subprocess.run([sys.executable, "-m", "venv", "env"], cwd=folder, check=True)
    subprocess.run(
        [
            "env/bin/pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            str(REPOSITORY),
            "venv-pack",
            "setuptools<81",
        ],
        cwd=folder,
        check=True,
    )
    subprocess.run(
        ["env/bin/venv-pack", "-q", "-p", "env", "-o", "env.tar.gz", "--compress-level", "1"], cwd=folder, check=True
    )
    return folder / "env.tar.gz"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, bare: str) -> Iterator[Cluster]:
    with standalone(tmp_path_factory.mktemp("cluster"), python=bare, path=None) as running:
        yield running


def test_a_bare_executor_cannot_run_the_job(cluster: Cluster, bare: str, tmp_path: Path) -> None:
    done = run(cluster, "parity", tmp_path, "spark.task.maxFailures=1", python=bare)
    assert done.returncode != 0


def test_the_recipe_of_the_page(cluster: Cluster, archive: Path, tmp_path: Path) -> None:
    (tmp_path / "in.json").write_text(
        "\n".join(f'{{"id": {row}, "text": "play some music {row}"}}' for row in range(30))
    )
    job = {
        "read": {"format": "json", "path": str(tmp_path / "in.json")},
        "stages": [{"DocumentAssembler": {"inputCol": "text"}}, {"TextClassifier": {"outputCol": "intent"}}],
        "write": {"format": "parquet", "path": str(tmp_path / "out")},
    }
    (tmp_path / "JOB.yaml").write_text(yaml.safe_dump(job))
    settings = [
        "spark.executor.cores=1",
        "spark.executor.memory=512m",
        "spark.driver.host=127.0.0.1",
        "spark.driver.bindAddress=127.0.0.1",
    ]
    command = [str(HOME / "bin" / "spark-submit"), "--master", cluster.master, "--archives", f"{archive}#env"]
    command += ["--properties-file", str(REPOSITORY / "conf" / "spark" / "cluster.conf")]
    command += [part for setting in settings for part in ("--conf", setting)]
    command += [str(REPOSITORY / "scripts" / "annotate.py"), str(tmp_path / "JOB.yaml")]
    known = {"PYSPARK_PYTHON": "./env/bin/python", "SPARK_HOME": str(HOME), "SPARK_LOCAL_IP": "127.0.0.1"}
    environment = {
        name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYSPARK_DRIVER_PYTHON")
    } | known
    done = subprocess.run(
        command, cwd=archive.parent, env=environment, capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "rows              30" in done.stdout
    assert "on CPUExecutionProvider" in done.stdout
    assert sorted(pq.read_table(tmp_path / "out").column("id").to_pylist()) == list(range(30))


def test_an_environment_sent_with_the_job_is_all_it_takes(cluster: Cluster, archive: Path, tmp_path: Path) -> None:
    found = drive(cluster, "parity", tmp_path, f"spark.archives={archive}#env", python="./env/bin/python")
    assert [row[0] for row in found["rows"]] == list(range(200))
    assert found["again"]
