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
    """Who holds a lock, as its file says; all fields are empty where the file does not say."""

    token: str = ""
    job: str = ""
    host: str = ""
    machine: str = ""
    pid: int = 0
    started: str = ""
    jvm: int = 0
    jvm_started: str = ""
    since: str = ""
    beat: int = 0

    def state(self) -> str:
        """Return ``alive``, ``ending`` (only its JVM is left), ``gone`` or ``elsewhere`` (this machine cannot tell)."""
        if self.machine != machine():
            return "elsewhere"
        if _runs(self.pid, self.started):
            return "alive"
        if self.jvm and _runs(self.jvm, self.jvm_started):
            return "ending"
        return "gone"

    def __str__(self) -> str:
        if not self.token:
            return "an unknown run"
        return f"job {self.job!r} on {self.host}, process {self.pid}, since {self.since}"

    def to_json(self) -> str:
        """Return the text of this owner's lock file."""
        return json.dumps(dataclasses.asdict(self))


def owner_in(text: Any) -> Owner:
    """Return the owner that a lock file's text names; an empty one where it is incomplete, or of another version."""
    try:
        content = json.loads(text)
        return Owner(**content)
    except (ValueError, TypeError):
        return Owner()


def machine() -> str:
    """Identify this machine, its boot and its process numbers.

    Containers of one host may share its name, but each has its own process numbers.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        process_numbers = os.readlink("/proc/self/ns/pid")
    except OSError:  # no Linux
        return f"{socket.gethostname()} {uuid.getnode()}"
    return f"{boot} {process_numbers}"


def started_at(pid: int) -> str:
    """Return when a process started, as the kernel counts, since numbers are used again; empty where it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    # The program's name comes first, in brackets, and may hold blanks and brackets itself.
    fields = stat.rpartition(")")[2].split()
    state, start_time = fields[0], fields[19]
    return "" if state == "Z" else start_time


def _runs(pid: int, started: str) -> bool:
    if Path("/proc/self/stat").exists():
        return started != "" and started == started_at(pid)
    try:
        os.kill(pid, 0)
    except OSError as error:
        return isinstance(error, PermissionError)  # a process of another user
    return True


def jvm_pid(spark: SparkSession) -> int:
    """Return the process of the driver's JVM, which outlives a killed Python for some seconds; 0 where unknown."""
    if is_connect(spark):
        return 0
    try:
        process = spark.sparkContext._jvm.java.lang.ProcessHandle.current()  # type: ignore[union-attr]
        return int(process.pid())
    except Exception:  # a cluster that keeps Python from the JVM
        return 0
