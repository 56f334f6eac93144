"""Locks between the processes of a machine, which the kernel drops when a process is killed."""

from __future__ import annotations

import os
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: nothing is kept there, and every process opens its own copy
    fcntl = None  # type: ignore[assignment]


def has_locks() -> bool:
    """Tell whether this machine has such locks."""
    return fcntl is not None


class Lock:
    """A lock file of this machine, held until the object goes or the process ends."""

    _descriptor = -1

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def share(self) -> Lock:
        """Wait until nobody holds the lock alone, and hold it with others."""
        fcntl.flock(self._descriptor, fcntl.LOCK_SH)
        return self

    def take(self) -> Lock:
        """Wait until nobody holds the lock, and hold it alone."""
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        return self

    def try_take(self) -> bool:
        """Hold the lock alone if nobody holds it."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        """Let go."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()
