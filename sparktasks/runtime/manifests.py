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
    # An entry without files is one whose list is missing.
    if not files:
        return False
    try:
        if _file_names(entry) != sorted(files):
            return False
        return all(_is_unchanged(entry / CONTENT / name, listed, thoroughly) for name, listed in files.items())
    except (OSError, ValueError):
        # A file went meanwhile, or the list has another form.
        return False


def _is_unchanged(path: Path, listed: list[Any], thoroughly: bool) -> bool:
    """Tell whether a file is as the list has it."""
    size, changed, sha256 = listed
    if _state(path) != [size, changed]:
        return False
    # A change may leave size and time as they were.
    current = read_hash(path) if thoroughly else sha256
    return bool(current == sha256)


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
    names = []
    for path in content.rglob("*"):
        # A link to a folder is no folder: nobody put one there.
        if path.is_symlink() or not path.is_dir():
            names.append(str(path.relative_to(content)))
    return sorted(names)


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
        if content["format"] != _FORMAT:
            return {}
        return dict(content["files"])
    except (OSError, ValueError, KeyError):
        return {}
