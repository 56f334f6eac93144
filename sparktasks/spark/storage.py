"""Folders at URIs that Spark's Hadoop client reads and writes, on classic Spark and on Connect."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlparse

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from sparktasks.errors import DeliveryError
from sparktasks.runtime.cache import ProcessCache
from sparktasks.runtime.store import Entry, Store
from sparktasks.spark.delivery import is_connect
from sparktasks.spark.sessions import need_session

_CHUNK = 32 * 1024 * 1024


def local_path(location: str) -> Path | None:
    """Return a location as a path where it may be one of this machine: no scheme, or ``file:``.

    >>> local_path("file:///tmp/model")
    PosixPath('/tmp/model')
    """
    parsed = urlparse(location)
    if parsed.scheme == "file":
        return Path(unquote(parsed.path))
    return Path(location) if not parsed.scheme else None


def fetch_folder(uri: str) -> Path:
    """Copy a folder that Spark can read into this machine's store and return the copy, once for each state of it.

    The copy stays while its owner lives (see `hold_files`), else as long as this process does.
    """
    spark = need_session(uri)
    files = spark.read.format("binaryFile").option("recursiveFileLookup", "true").load(uri)
    rows = files.select("path", "length", "modificationTime").collect()
    root = _common_root(uri, [row["path"] for row in rows])
    state = "\n".join(sorted(f"{row['path']} {row['length']} {row['modificationTime']}" for row in rows))

    def fetch(folder: Path) -> None:
        for row in rows:
            _fetch(spark, row, folder / _path_of(row["path"]).relative_to(root))

    entry = Store().open("fetched", hashlib.sha256(state.encode()).hexdigest(), fetch)
    _fetched[entry.content.resolve()] = entry
    return entry.content


# Entries of the store that this process uses, by their folders; the store evicts none that is in use.
_fetched: dict[Path, Entry] = {}


def _path_of(uri: str) -> PurePosixPath:
    return PurePosixPath(unquote(urlparse(uri).path))


def _common_root(uri: str, paths: Iterable[str]) -> PurePosixPath:
    """Return the folder's path as the paths of its files have it; `DeliveryError` where there are no files."""
    root = _path_of(uri)
    for path in paths:
        if root in _path_of(path).parents:
            return root
    raise DeliveryError(f"{uri}: there are no files in this folder")


def _fetch(spark: SparkSession, row: Any, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    content = spark.read.format("binaryFile").load(row["path"])
    with open(target, "wb") as file:
        # In pieces: a graph of gigabytes would not fit into one message of the JVM.
        for start in range(0, row["length"], _CHUNK):
            file.write(content.select(F.substring("content", start + 1, _CHUNK)).head()[0])  # type: ignore[index]
    if target.stat().st_size != row["length"]:
        raise DeliveryError(f"{row['path']}: {row['length']} bytes announced, {target.stat().st_size} arrived")


def put_files(folder: Path, names: Iterable[str], location: str, shared: bool) -> None:
    """Copy files of a local folder to a location; ``shared`` says that this process sees the location as a path."""
    with tempfile.TemporaryDirectory() as scratch:
        for name in names:
            # A folder of the hub's cache holds links.
            source = (folder / name).resolve()
            if not source.exists():  # saving over the folder that it was loaded from deleted it
                source = _restored(folder, name, Path(scratch))
            if shared:
                target = Path(str(local_path(location)), name)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)
            else:
                _upload(need_session(location), source, f"{location}/{name}")


class _HeldFiles:
    """Open files of a folder, which stay readable when the folder is deleted."""

    def __init__(self, folder: Path, names: Iterable[str]) -> None:
        self._descriptors = {name: os.open(folder / name, os.O_RDONLY) for name in names}

    def copy(self, name: str, target: Path) -> None:
        with open(target, "wb") as file:
            at = 0
            while chunk := os.pread(self._descriptors[name], _CHUNK, at):
                at += file.write(chunk)

    def __del__(self) -> None:
        for descriptor in self._descriptors.values():
            os.close(descriptor)


_held: ProcessCache[_HeldFiles] = ProcessCache(limit=32)


def hold_files(folder: Path, names: Iterable[str], owner: object = None) -> None:
    """Keep a saved stage's files readable: saving it again over itself deletes the folder before the stage is written.

    A folder that was fetched stays in the store as long as ``owner``, such as its bundle.
    """
    _held.put(str(folder), _HeldFiles(folder, names))
    if owner is None:
        return
    # A stage's bundle lies inside the folder that was fetched.
    for parent in (folder, *folder.parents):
        if parent in _fetched:
            weakref.finalize(owner, _fetched.pop(parent).lock.close).atexit = False
            return


def _restored(folder: Path, name: str, scratch: Path) -> Path:
    held = _held.find(str(folder))
    if held is None:
        raise DeliveryError(
            f"{folder / name} is gone: the model's folder was deleted while a stage used it. Load the stage again"
        )
    held.copy(name, scratch / "file")
    return scratch / "file"


def _upload(spark: Any, source: Path, target: str) -> None:
    if is_connect(spark):
        spark.copyFromLocalToFs(str(source), target)
        return
    jvm = spark.sparkContext._jvm
    path = jvm.org.apache.hadoop.fs.Path(target)
    path.getFileSystem(spark._jsc.hadoopConfiguration()).copyFromLocalFile(
        jvm.org.apache.hadoop.fs.Path(source.as_uri()), path
    )
