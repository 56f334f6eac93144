"""A process of its own for what could hang, or take all memory."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

SECONDS = 20
BYTES = 3 * 1024**3

_BEFORE = """
import sys, time
from sparktasks.errors import SparkTasksError
from sparktasks.runtime.bundle import open_bundle
def attempt(call):
    started = time.monotonic()
    try:
        call()
        answer = "accepted"
    except SparkTasksError as error:
        answer = f"{type(error).__name__}: {error}"
    print(f"{time.monotonic() - started:.1f}\\t{answer}")
"""


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))


def attempt(code: str, *arguments: Path | str) -> tuple[float, str]:
    """Run ``attempt(lambda: ...)`` in a new process; return the seconds it took, and "accepted" or the error of
    ours."""
    command = [sys.executable, "-c", _BEFORE + code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, preexec_fn=_limit, check=False)
    assert done.returncode == 0, f"not an error of ours, or killed ({done.returncode}):\n{done.stderr[-2000:]}"
    seconds, answer = done.stdout.strip().splitlines()[-1].split("\t", 1)
    return float(seconds), answer
