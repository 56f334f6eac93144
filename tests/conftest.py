"""One Spark session, small bundles, and frames for the whole suite."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")])

os.environ["SPARKTASKS_CACHE"] = tempfile.mkdtemp(prefix="sparktasks-tests-")
atexit.register(shutil.rmtree, os.environ["SPARKTASKS_CACHE"], ignore_errors=True)

BUNDLES = Path(__file__).parent / "bundles"

SETTINGS = {
    "spark.ui.enabled": "false",
    "spark.sql.shuffle.partitions": "2",
    "spark.default.parallelism": "2",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.memory": "2g",
    "spark.log.level": "ERROR",
    # Tests are many small jobs: compiling them well takes the JVM longer than running them, a third of its time.
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
}


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """A classic session on two cores."""
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master("local[2]").appName("tests")
    for key, value in (SETTINGS | {"spark.sql.warehouse.dir": str(tmp_path_factory.mktemp("warehouse"))}).items():
        builder = builder.config(key, value)
    session = builder.getOrCreate()
    yield session
    session.stop()


@pytest.fixture(params=["arrow", "pandas"])
def adapter(request: pytest.FixtureRequest, spark: object) -> Iterator[str]:
    """Each vectorized adapter in turn; Spark before 4.1 has one."""
    from sparktasks.spark.vectorized import ADAPTER_SETTING, adapter_of

    if request.param == "arrow" and adapter_of(spark.range(1)) != "arrow":  # type: ignore[attr-defined]
        pytest.skip("this Spark has no arrow_udf")
    spark.conf.set(ADAPTER_SETTING, request.param)  # type: ignore[attr-defined]
    yield request.param
    spark.conf.unset(ADAPTER_SETTING)  # type: ignore[attr-defined]


@pytest.fixture(scope="session")
def bundle() -> Callable[[str], str]:
    """The folder of a committed tiny bundle, by name."""

    def find(name: str) -> str:
        folder = BUNDLES / name
        assert folder.is_dir(), f"{folder} is missing: run scripts/make_tiny_bundles.py --committed"
        return str(folder)

    return find
