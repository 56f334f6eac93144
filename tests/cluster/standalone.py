"""A real standalone cluster on loopback: one master and two one-core workers, each with a store of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pyspark

HOME = Path(pyspark.__file__).parent
REPOSITORY = Path(__file__).parents[2]
START_SECONDS = 60

# Loaded by every Python of the executors: their stderr tells what the store did, and packages can be made to be
# missing.
_SITE = """
import logging, os, sys
logging.basicConfig(level=logging.WARNING)
logging.getLogger("sparktasks").setLevel(logging.INFO)
sys.modules.update(dict.fromkeys(filter(None, os.environ.get("LACKING", "").split(","))))
"""


@dataclass
class Cluster:
    """A running cluster; the roots stand for the disks of two machines."""

    master: str
    folder: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def roots(self) -> list[Path]:
        """The folder of each worker's store."""
        return [self.folder / f"root{number}" for number in (1, 2)]

    def said(self, text: str) -> list[str]:
        """Return the lines with a text that Python workers wrote to their executors' logs, with the worker's name."""
        logs = sorted(self.folder.glob("worker*/app-*/*/stderr"))
        return [
            f"{log.relative_to(self.folder).parts[0]}: {line}"
            for log in logs
            for line in log.read_text().splitlines()
            if text in line
        ]


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def standalone(folder: Path, python: str = sys.executable, path: Path | None = REPOSITORY) -> Iterator[Cluster]:
    """Run a cluster whose executors use ``python`` and find packages below ``path``."""
    port = free_port()
    cluster = Cluster(f"spark://127.0.0.1:{port}", folder)
    site = folder / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(_SITE)
    known = {"SPARK_HOME": str(HOME), "SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": python}
    environment = {
        name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "SPARKTASKS_CACHE")
    } | known
    environment["PYTHONPATH"] = os.pathsep.join(str(each) for each in (site, path) if each)
    try:
        _start(
            cluster,
            "master",
            environment,
            ["master.Master", "--host", "127.0.0.1", "--port", str(port), "--webui-port", "0"],
        )
        _wait(folder / "master.log", "Starting Spark master")
        for number, root in enumerate(cluster.roots, start=1):
            place = [
                "worker.Worker",
                "--webui-port",
                "0",
                "-c",
                "1",
                "-m",
                "1g",
                "-d",
                str(folder / f"worker{number}"),
                cluster.master,
            ]
            _start(cluster, f"worker{number}", environment | {"SPARKTASKS_CACHE": str(root)}, place)
        for number in (1, 2):
            _wait(folder / f"worker{number}.log", "Successfully registered with master")
        yield cluster
    finally:
        for process in cluster.processes:
            process.terminate()
        for process in cluster.processes:
            process.wait(timeout=30)


def _start(cluster: Cluster, name: str, environment: dict[str, str], arguments: list[str]) -> None:
    command = [str(HOME / "bin" / "spark-class"), f"org.apache.spark.deploy.{arguments[0]}", *arguments[1:]]
    with open(cluster.folder / f"{name}.log", "wb") as log:
        cluster.processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT))


def _wait(log: Path, text: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while text not in (log.read_text() if log.exists() else ""):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{log.name} did not say {text!r} in {START_SECONDS} s: {log.read_text()[-2000:]}")
        time.sleep(0.2)
