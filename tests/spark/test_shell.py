"""The pyspark shell: five lines typed at its prompt annotate."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

LINES = """from pyspark.ml import PipelineModel
from sparktasks import DocumentAssembler, TextClassifier
df = spark.createDataFrame([("play some jazz",)], ["text"])
model = PipelineModel([DocumentAssembler(), TextClassifier.pretrained(topK=1)])
print("ANSWER", model.transform(df).head()["category"][0].result)
"""


def test_five_lines_in_the_shell_annotate(tmp_path: Path) -> None:
    shell = [str(Path(sys.executable).parent / "pyspark"), "--master", "local[1]", "--conf", "spark.ui.enabled=false"]
    interactive = {
        "PYSPARK_DRIVER_PYTHON": sys.executable,
        "PYSPARK_DRIVER_PYTHON_OPTS": "-i",
    }  # as at a terminal, which a pipe is not
    done = subprocess.run(
        shell,
        input=LINES,
        capture_output=True,
        text=True,
        timeout=180,
        cwd=tmp_path,
        env=os.environ | interactive,
        check=False,
    )
    assert "ANSWER play_music" in done.stdout, done.stdout[-2000:] + done.stderr[-3000:]
