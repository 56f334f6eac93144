"""Annotators that write down how often, on how many rows and in which process they ran."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from pyspark.ml import Pipeline

from sparktasks import DocumentAssembler
from sparktasks.kernels.columns import DOCUMENT, Annotations, build
from sparktasks.spark.annotator import ColumnAnnotator
from sparktasks.spark.params import P, param


@dataclass(frozen=True)
class LogRows:
    """A kernel that writes one line per call: its name, the rows it got, the process."""

    log: str
    name: str

    def __call__(self, *columns: pa.Array) -> pa.Array:
        with open(self.log, "a") as file:
            file.write(f"{self.name} {len(columns[0])} {os.getpid()}\n")
        rows = Annotations(columns[0]).by_row()
        return build(
            [[a._replace(result=f"{a.result}{self.name}", end=a.end + len(self.name)) for a in row] for row in rows]
        )


class Logger(ColumnAnnotator):
    """An annotator that counts."""

    reads = (DOCUMENT,)
    writes = DOCUMENT

    log: P[str] = param("file to write to", default="")

    def kernel(self) -> LogRows:
        return LogRows(self.getOrDefault("log"), self.getOrDefault("outputCol"))


class Log:
    """The calls that the kernels of one test made."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def calls(self) -> list[list[str]]:
        return [line.split() for line in self.path.read_text().splitlines()] if self.path.exists() else []

    def rows(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for name, rows, _ in self.calls():
            counts[name] = counts.get(name, 0) + int(rows)
        return counts

    def workers(self) -> int:
        return len({pid for _, _, pid in self.calls()})


def pipeline(log: Log) -> Pipeline:
    """Four stages: an assembler, and three loggers of which the last reads the first again."""
    stages = [
        Logger(inputCols=name, outputCol=output, log=str(log.path))
        for name, output in [("document", "a"), ("a", "b"), ("document", "c")]
    ]
    return Pipeline(stages=[DocumentAssembler(), *stages])
