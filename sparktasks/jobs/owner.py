"""Who holds an output's lock, and whether that process still runs."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from sparktasks.spark.delivery import is_connect


@dataclass(frozen=True)
class Owner:
    """Who holds a lock, as the file says."""

    token: str
    job: str
    host: str
    machine: str
    pid: int
    started: str
    jvm: int
    jvm_started: str
    since: str
    beat: int = 0

    def state(self) -> str:
        """Tell whether the owner lives: ``alive``, ``ending`` (only its JVM is left), ``gone``, or ``elsewhere``
        (unknown)."""
        if self.machine != machine():
            return "elsewhere"
        if _runs(self.pid, self.started):
            return "alive"
        return "ending" if self.jvm and _runs(self.jvm, self.jvm_started) else "gone"

    def __str__(self) -> str:
        return f"job {self.job!r} on {self.host}, process {self.pid}, since {self.since}"


def machine() -> str:
    """Identify this machine, its start and its process numbers: containers of one host may share its name, not its
    processes."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"{socket.gethostname()} {uuid.getnode()}"


def started_at(pid: int) -> str:
    """Return when a process started, as the kernel counts, since numbers are used again; empty where it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]


def _runs(pid: int, started: str) -> bool:
    if Path("/proc/self/stat").exists():
        return started_at(pid) == started != ""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def jvm_pid(spark: SparkSession) -> int:
    """Return the process of the driver's JVM, which outlives a killed Python for some seconds; 0 where it is not
    known."""
    if is_connect(spark):
        return 0
    try:
        return int(spark.sparkContext._jvm.java.lang.ProcessHandle.current().pid())  # type: ignore[union-attr]
    except Exception:  # a cluster that keeps Python from the JVM
        return 0


def written(owner: Owner) -> str:
    """Return an owner as a lock file has it."""
    return json.dumps(dataclasses.asdict(owner))


def read(text: str) -> Owner | None:
    """Return the owner that a lock file names; None where it is not whole, or of another version."""
    try:
        content: dict[str, Any] = json.loads(text)
        return Owner(**content)
    except (ValueError, TypeError):
        return None
