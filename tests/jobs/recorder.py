"""The `sparktasks` command with one more annotator, which writes down every text it gets and can be slow, or fail."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

import sparktasks
from sparktasks.cli import main
from sparktasks.kernels.columns import DOCUMENT, Annotations
from sparktasks.spark.annotator import ColumnAnnotator
from sparktasks.spark.params import P, param


@dataclass(frozen=True)
class Record:
    """documents -> the same documents."""

    log: str
    slow: str
    seconds: float

    def __call__(self, *columns: pa.Array) -> pa.Array:
        unwanted = recorded(Path(f"{self.log}.fail"))
        hold = Path(f"{self.log}.hold")
        for text in Annotations(columns[0]).result:
            if text in unwanted:
                raise ValueError(f"the text {text!r} is not wanted")
            with open(self.log, "ab", buffering=0) as file:
                file.write(f"{text}\n".encode())
            if self.slow in str(text):
                time.sleep(self.seconds)
            while text in recorded(hold):
                time.sleep(0.02)
        return columns[0]


class Recorder(ColumnAnnotator):
    """Writes down what it gets; texts in the file LOG.fail raise, those in LOG.hold wait until it is gone."""

    reads = (DOCUMENT,)
    writes = DOCUMENT

    outputCol: P[str] = param("name of the column to write", default="recorded")
    log: P[str] = param("file to write to", default="")
    slow: P[str] = param("texts that hold this take `seconds`", default="")
    seconds: P[float] = param("how long a slow text takes", default=0.0)

    def kernel(self) -> Record:
        """Return the executor half."""
        return Record(*map(self.getOrDefault, ("log", "slow", "seconds")))


def recorded(log: Path) -> list[str]:
    """Return the texts that were run, in the order they were."""
    try:
        return log.read_text().splitlines()
    except FileNotFoundError:
        return []


if __name__ == "__main__":
    os.environ["PYSPARK_PYTHON"] = sys.executable
    # Under its own name, so that the kernel pickles by reference.
    from tests.jobs import recorder

    sparktasks.Recorder = recorder.Recorder  # type: ignore[attr-defined]
    sparktasks.__all__.append("Recorder")
    main(sys.argv[1:])
