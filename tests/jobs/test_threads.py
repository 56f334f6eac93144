"""Jobs, models and saved stages in threads of an application: its session is found, and never stopped."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyspark
import pytest


@pytest.mark.parametrize("mode", ["classic", "connect"])
def test_thread_uses_the_session_of_the_process_and_leaves_it(tmp_path: Path, mode: str) -> None:
    if mode == "connect" and pyspark.__version__ < "4":
        pytest.skip("local Connect servers need Spark 4")
    command = [sys.executable, "-m", "tests.jobs.in_threads", str(tmp_path), mode]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found.pop("session"), found.pop("rows")) == ("3", "3")
    assert set(found.values()) == {""}, found
