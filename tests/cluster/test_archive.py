"""Executors whose own Python has none of our packages run a job from an environment that is sent with it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.standalone import REPOSITORY, Cluster, standalone
from tests.cluster.test_cluster import drive, run


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a Python without packages."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    return str(folder / "bin" / "python")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pack an environment as the README says."""
    folder = tmp_path_factory.mktemp("packed")
    subprocess.run([sys.executable, "-m", "venv", "env"], cwd=folder, check=True)
    subprocess.run(
        ["env/bin/pip", "install", "--quiet", "--disable-pip-version-check", str(REPOSITORY), "venv-pack", "setuptools<81"], cwd=folder, check=True
    )
    subprocess.run(["env/bin/venv-pack", "-q", "-p", "env", "-o", "env.tar.gz", "--compress-level", "1"], cwd=folder, check=True)
    return folder / "env.tar.gz"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, bare: str) -> Iterator[Cluster]:
    with standalone(tmp_path_factory.mktemp("cluster"), python=bare, path=None) as running:
        yield running


def test_a_bare_executor_cannot_run_the_job(cluster: Cluster, bare: str, tmp_path: Path) -> None:
    done = run(cluster, "parity", tmp_path, "spark.task.maxFailures=1", python=bare)
    assert done.returncode != 0


def test_an_environment_sent_with_the_job_is_all_it_takes(cluster: Cluster, archive: Path, tmp_path: Path) -> None:
    found = drive(cluster, "parity", tmp_path, f"spark.archives={archive}#env", python="./env/bin/python")
    assert [row[0] for row in found["rows"]] == list(range(200))
    assert found["again"]
