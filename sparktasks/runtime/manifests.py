"""The list of a store entry's files: names, sizes, change times and hashes, written when the entry is whole.

ENTRY/content/         the files
ENTRY/manifest.json    the list
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from sparktasks.runtime.hashes import file_hash, read_hash

MANIFEST = "manifest.json"
CONTENT = "content"
_FORMAT = 1


def write_manifest(entry: Path) -> None:
    """List the files of an entry, which from now on are not to change."""
    files: dict[str, Any] = {}
    for name in _file_names(entry):
        path = entry / CONTENT / name
        sync(path)
        files[name] = [*(_state(path) or ()), file_hash(path)]
    manifest = entry / MANIFEST
    manifest.write_text(json.dumps({"format": _FORMAT, "files": files}), encoding="utf-8")
    sync(manifest)
    sync(entry)


def is_whole(entry: Path, thoroughly: bool = False) -> bool:
    """Tell whether an entry's files are those of its list, by names, sizes and change times; ``thoroughly`` reads
    them."""
    files = _read_manifest(entry)
    try:
        if not files or _file_names(entry) != sorted(files):
            return False
        for name, (size, changed, sha256) in files.items():
            path = entry / CONTENT / name
            if _state(path) != [size, changed]:
                return False
            # A change may leave size and time as they were.
            if thoroughly and read_hash(path) != sha256:
                return False
    except (OSError, ValueError):  # a file that goes meanwhile, a list of another form
        return False
    return True


def listed_bytes(entry: Path) -> int:
    """Return the bytes of an entry's files."""
    return sum(listed[0] for listed in _read_manifest(entry).values())


def last_use(entry: Path) -> float:
    """Return the time when an entry was opened last; 0 where it has no list."""
    try:
        return (entry / MANIFEST).stat().st_mtime
    except OSError:
        return 0.0


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _file_names(entry: Path) -> list[str]:
    content = entry / CONTENT
    paths = [path for path in content.rglob("*") if path.is_symlink() or not path.is_dir()]
    return sorted(str(path.relative_to(content)) for path in paths)


def _state(path: Path) -> list[int] | None:
    """Return size and change time of a plain file; None for anything else."""
    state = os.lstat(path)
    if not stat.S_ISREG(state.st_mode):
        return None
    return [state.st_size, state.st_mtime_ns]


def _read_manifest(entry: Path) -> dict[str, list[Any]]:
    """Return the list of an entry's files; an empty one where it is missing, damaged or of another version."""
    try:
        content = json.loads((entry / MANIFEST).read_text(encoding="utf-8"))
        return dict(content["files"]) if content["format"] == _FORMAT else {}
    except (OSError, ValueError, KeyError):
        return {}
