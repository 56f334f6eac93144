"""Small files beside a job's data: on this machine, or wherever Spark's Hadoop client reaches."""

from __future__ import annotations

import errno
import os
import posixpath
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from sparktasks.spark.delivery import is_connect
from sparktasks.spark.storage import local_path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")


class Files(ABC):
    """A file system, of which a job needs little; errors are `OSError`, or what the JVM throws."""

    is_local: bool

    @abstractmethod
    def read(self, path: str) -> str | None:
        """Return a file's text; None where there is no such file."""

    @abstractmethod
    def create(self, path: str, text: str) -> bool:
        """Write a new file, whole or not at all; False where it already exists."""

    @abstractmethod
    def replace(self, path: str, text: str) -> None:
        """Write a file, in the place of one that is there."""

    @abstractmethod
    def rename(self, path: str, target: str) -> bool:
        """Give a file another name, in a folder that is made if need be; False where the file is gone."""

    @abstractmethod
    def remove(self, path: str) -> None:
        """Take a file away if it is there."""

    @abstractmethod
    def remove_folder(self, path: str) -> None:
        """Take a folder away, with all that is in it, if it is there."""

    @abstractmethod
    def exists(self, path: str) -> bool:
        """Tell whether there is a file or a folder."""

    @abstractmethod
    def data_files(self, folder: str) -> Iterator[str]:
        """Return the paths of the files below a folder that Spark's readers see: no name on the way begins with _ or
        a dot."""

    def has_data(self, folder: str) -> bool:
        """Tell whether a folder holds any file that Spark's readers see."""
        return next(self.data_files(folder), None) is not None

    @contextmanager
    def guarded(self, folder: str) -> Iterator[None]:
        """Keep other processes of this machine out of the same block, where the file system can."""
        yield


class LocalFiles(Files):
    """The files of this machine."""

    is_local = True

    def read(self, path: str) -> str | None:
        try:
            return Path(path).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None

    def create(self, path: str, text: str) -> bool:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        whole = _scratch(path, text)
        try:
            os.link(whole, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            return _create_empty_first(path, text)
        finally:
            os.unlink(whole)
        return True

    def replace(self, path: str, text: str) -> None:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.replace(_scratch(path, text), path)

    def rename(self, path: str, target: str) -> bool:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        try:
            os.rename(path, target)
        except FileNotFoundError:
            return False
        return True

    def remove(self, path: str) -> None:
        Path(path).unlink(missing_ok=True)
        # What Hadoop's local file system keeps beside each file of its own.
        Path(path).with_name(f".{os.path.basename(path)}.crc").unlink(missing_ok=True)

    def remove_folder(self, path: str) -> None:
        shutil.rmtree(path, ignore_errors=True)

    def exists(self, path: str) -> bool:
        return os.path.exists(path)

    def data_files(self, folder: str) -> Iterator[str]:
        for parent, folders, names in os.walk(folder):
            folders[:] = [name for name in folders if _is_data(name)]
            yield from (os.path.join(parent, name) for name in names if _is_data(name))

    @contextmanager
    def guarded(self, folder: str) -> Iterator[None]:
        try:
            descriptor = os.open(folder, os.O_RDONLY)
        except OSError:
            yield
            return
        try:
            _try_lock(descriptor)
            yield
        finally:
            os.close(descriptor)


def _scratch(path: str, text: str) -> str:
    """Write a hidden file beside a path and return its name."""
    descriptor, name = tempfile.mkstemp(prefix=f".{os.path.basename(path)}.", dir=os.path.dirname(path))
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(name, 0o644)
    return name


def _create_empty_first(path: str, text: str) -> bool:
    """Create a file where the file system has no hard links; for a moment it is there without its text."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    return True


def _try_lock(descriptor: int) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:  # some mounted volumes have no locks; the file's own atomic creation decides there
        return


def _is_data(name: str) -> bool:
    # `_name=value` is a partition's folder.
    return not name.startswith(".") and not (name.startswith("_") and "=" not in name)


class HadoopFiles(Files):
    """The files of a Hadoop file system (hdfs:, s3a:, abfss:, ...), through the JVM of classic Spark."""

    is_local = False

    def __init__(self, spark: SparkSession, path: str) -> None:
        self._jvm: Any = spark.sparkContext._jvm
        configuration = spark._jsparkSession.sessionState().newHadoopConf()
        self._system: Any = self._path(path).getFileSystem(configuration)

    def _path(self, path: str) -> Any:
        return self._jvm.org.apache.hadoop.fs.Path(path)

    def qualified(self, path: str) -> Any:
        """Return a path with scheme and authority, as a Hadoop Path."""
        return self._system.makeQualified(self._path(path))

    def read(self, path: str) -> str | None:
        if not self.exists(path):
            return None
        stream = self._system.open(self._path(path))
        try:
            return bytes(self._jvm.org.apache.commons.io.IOUtils.toByteArray(stream)).decode()
        finally:
            stream.close()

    def create(self, path: str, text: str) -> bool:
        if self.exists(path):
            return False
        try:
            self._write(path, text, overwrite=False)
        except Exception:
            if self.exists(path):  # another process was faster
                return False
            raise
        return True

    def replace(self, path: str, text: str) -> None:
        self._write(path, text, overwrite=True)

    def _write(self, path: str, text: str, overwrite: bool) -> None:
        stream = self._system.create(self._path(path), overwrite)
        try:
            stream.write(bytearray(text.encode()))
        finally:
            stream.close()

    def rename(self, path: str, target: str) -> bool:
        if not self.exists(path):
            return False
        self._system.mkdirs(self._path(target).getParent())
        return bool(self._system.rename(self._path(path), self._path(target)))

    def remove(self, path: str) -> None:
        self._system.delete(self._path(path), False)

    def remove_folder(self, path: str) -> None:
        self._system.delete(self._path(path), True)

    def exists(self, path: str) -> bool:
        return bool(self._system.exists(self._path(path)))

    def data_files(self, folder: str) -> Iterator[str]:
        if not self.exists(folder):
            return
        files = self._system.listFiles(self._path(folder), True)
        while files.hasNext():
            path = str(files.next().getPath().toString())
            if all(map(_is_data, path.removeprefix(folder).strip("/").split("/"))):
                yield path


@dataclass(frozen=True)
class Place:
    """A folder that this process can look into: its full path, links resolved, and the file system it is on."""

    files: Files
    path: str

    @property
    def parent(self) -> str:
        """The folder that holds this one; an empty string for a root."""
        parent, name = posixpath.split(self.path.rstrip("/"))
        return parent if name and not parent.endswith(":") else ""

    def inside(self, name: str) -> str:
        """Return the path of a file in this folder."""
        return f"{self.path.rstrip('/')}/{name}"

    def beside(self, name: str) -> str:
        """Return the path of a file in the folder that holds this one."""
        return f"{self.parent.rstrip('/')}/{name}"


def place_of(spark: SparkSession, location: str) -> Place | None:
    """Find a location of a session's as this process sees it; None where it cannot look there.

    On Spark Connect that is so unless the server runs on this machine.
    """
    if is_connect(spark):
        return _place_on_connect(spark, location)
    try:
        files = HadoopFiles(spark, location)
        path = files.qualified(location)
    except Exception:  # no such scheme, which Spark itself will say; or a cluster that keeps Python from the JVM
        return None
    if path.toUri().getScheme() == "file":
        return Place(LocalFiles(), os.path.realpath(path.toUri().getPath()))
    return Place(files, str(path.toString()))


def _place_on_connect(spark: SparkSession, location: str) -> Place | None:
    path = local_path(location)
    host = str(getattr(spark.client, "host", ""))  # type: ignore[attr-defined]
    if path is None or host not in _THIS_MACHINE:
        return None
    # A relative path is relative to the server, which only a server that this process started shares.
    if not path.is_absolute() and "SPARK_LOCAL_REMOTE" not in os.environ:
        return None
    return Place(LocalFiles(), os.path.realpath(path))
