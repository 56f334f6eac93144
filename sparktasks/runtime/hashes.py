"""The sha256 of files; those that have not changed since are not read again."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

_CHUNK = 1 << 20


def file_hash(path: Path) -> str:
    """Return the sha256 of a file's content; a file that has not changed since is not read again."""
    state = path.stat()
    return _hash_of_state(str(path), state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino)


@lru_cache(maxsize=1024)
def _hash_of_state(path: str, *state: int) -> str:
    return read_hash(Path(path))


def read_hash(path: Path) -> str:
    """Return the sha256 of a file's content, read now."""
    total = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            total.update(chunk)
    return total.hexdigest()
