"""Jobs, models and saved stages in threads of an application: its session is found, and never stopped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyspark
import pytest
from pyspark.sql import SparkSession

from tests.jobs.in_threads import in_threads


def test_thread_uses_the_session_of_the_process_and_leaves_it(spark: SparkSession, tmp_path: Path) -> None:
    outcomes = in_threads(spark, tmp_path, can_save=True)
    assert (outcomes.pop("session"), outcomes.pop("rows")) == ("3", "3")
    assert outcomes == dict.fromkeys(["by URI", "save", "load", "job", "pipeline"], "")


@pytest.mark.skipif(pyspark.__version__ < "4", reason="local Connect servers need Spark 4")
def test_thread_uses_the_session_of_a_connect_client_and_leaves_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.jobs.in_threads", str(tmp_path)]
    # Makes Spark choose a free port: another test's server may have the usual one.
    environment = os.environ | {"SPARK_TESTING": "1"}
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert run.returncode == 0, run.stderr[-3000:]
    outcomes = json.loads(run.stdout.splitlines()[-1])
    assert (outcomes.pop("session"), outcomes.pop("rows")) == ("3", "3")
    assert outcomes == dict.fromkeys(["by URI", "job", "pipeline"], "")
