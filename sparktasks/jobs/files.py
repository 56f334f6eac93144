"""Small files beside a job's data: on this machine, or wherever Spark's Hadoop client reaches."""

from __future__ import annotations

import os
import posixpath
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import unquote, urlparse

from pyspark.sql import SparkSession

from sparktasks.spark.delivery import is_connect
from sparktasks.spark.storage import local_path

try:
    import fcntl
except ImportError:  # Windows, where a folder cannot be opened and so is never locked
    fcntl = None  # type: ignore[assignment]

# Spark's readers skip names that begin with a dot or a line, but `_name=value` is the folder of a partition.
_HIDDEN = re.compile(r"\.|_[^=]*$")
_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")


class LocalFiles:
    """The file system of this machine; its errors are `OSError`."""

    is_local = True

    def read(self, path: str) -> str | None:
        """Return a file's text; None where there is no such file."""
        try:
            return Path(path).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None

    def create(self, path: str, text: str) -> bool:
        """Write a new file, whole or not at all; False where it already exists."""
        os.makedirs(os.path.dirname(path), exist_ok=True)
        scratch = _write_scratch(path, text)
        try:
            # A link refuses to replace a file that is there; a rename would not.
            os.link(scratch, path)
            return True
        except FileExistsError:
            return False
        except OSError:
            return _create_without_link(path, text)
        finally:
            os.unlink(scratch)

    def replace(self, path: str, text: str) -> None:
        """Write a file, or replace the one that is there, at once."""
        os.makedirs(os.path.dirname(path), exist_ok=True)
        scratch = _write_scratch(path, text)
        os.replace(scratch, path)

    def rename(self, path: str, target: str) -> bool:
        """Move a file, making the target's folder where needed; False where the file is gone."""
        os.makedirs(os.path.dirname(target), exist_ok=True)
        try:
            os.rename(path, target)
        except FileNotFoundError:
            return False
        return True

    def remove(self, path: str) -> None:
        """Remove a file if it exists."""
        file = Path(path)
        # Hadoop's local file system keeps a checksum beside each file that it writes.
        checksum = file.with_name(f".{file.name}.crc")
        file.unlink(missing_ok=True)
        checksum.unlink(missing_ok=True)

    def remove_folder(self, path: str) -> None:
        """Remove a folder with everything in it, if it exists."""
        shutil.rmtree(path, ignore_errors=True)

    def exists(self, path: str) -> bool:
        """Tell whether there is a file or a folder."""
        return os.path.exists(path)

    def data_files(self, folder: str) -> Iterator[str]:
        """Return the paths of the files below a folder that Spark's readers see."""
        for parent, folders, names in os.walk(folder):
            folders[:] = filter(_is_data, folders)
            for name in filter(_is_data, names):
                yield os.path.join(parent, name)

    @contextmanager
    def guarded(self, folder: str) -> Iterator[None]:
        """Keep other processes of this machine out of the same block, where the file system can."""
        try:
            descriptor = os.open(folder, os.O_RDONLY)
        except OSError:
            yield
            return
        try:
            # Some mounted volumes have no locks; there the atomic creation of a file has to be enough.
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _write_scratch(path: str, text: str) -> str:
    """Write a hidden file beside a path and return its name."""
    prefix = f".{os.path.basename(path)}."
    descriptor, name = tempfile.mkstemp(prefix=prefix, dir=os.path.dirname(path))
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    # `mkstemp` lets nobody else read the file, but other users' runs must know whose lock it is.
    os.chmod(name, 0o644)
    return name


def _create_without_link(path: str, text: str) -> bool:
    """Create a file on a file system without hard links; for a moment it is there without its text."""
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return False
    return True


def _is_data(name: str) -> bool:
    return _HIDDEN.match(name) is None


class HadoopFiles:
    """The same for a Hadoop file system (hdfs:, s3a:, abfss:, ...), through the JVM of classic Spark.

    Errors are those of py4j.
    """

    is_local = False

    def __init__(self, spark: SparkSession, path: str) -> None:
        self._jvm: Any = spark.sparkContext._jvm
        configuration = spark._jsparkSession.sessionState().newHadoopConf()
        folder = self._path(path)
        self._system: Any = folder.getFileSystem(configuration)
        # With scheme and authority, as a Hadoop Path.
        self.qualified: Any = self._system.makeQualified(folder)

    def _path(self, path: str) -> Any:
        return self._jvm.org.apache.hadoop.fs.Path(path)

    def read(self, path: str) -> str | None:
        if not self.exists(path):
            return None
        stream = self._system.open(self._path(path))
        try:
            content = self._jvm.org.apache.commons.io.IOUtils.toByteArray(stream)
        finally:
            stream.close()
        return bytes(content).decode()

    def create(self, path: str, text: str) -> bool:
        try:
            self._write(path, text, overwrite=False)
        except Exception:
            # The JVM's errors differ between file systems, but a file that is there is reason enough.
            if self.exists(path):
                return False
            raise
        return True

    def replace(self, path: str, text: str) -> None:
        self._write(path, text, overwrite=True)

    def _write(self, path: str, text: str, overwrite: bool) -> None:
        content = bytearray(text.encode())
        stream = self._system.create(self._path(path), overwrite)
        try:
            stream.write(content)
        finally:
            stream.close()

    def rename(self, path: str, target: str) -> bool:
        if not self.exists(path):
            return False
        target_path = self._path(target)
        self._system.mkdirs(target_path.getParent())
        return bool(self._system.rename(self._path(path), target_path))

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
            names = path.removeprefix(folder).strip("/").split("/")
            if all(map(_is_data, names)):
                yield path

    def guarded(self, folder: str) -> AbstractContextManager[None]:
        return nullcontext()


Files: TypeAlias = LocalFiles | HadoopFiles


@dataclass(frozen=True)
class Place:
    """A folder that this process can look into: its full path, links resolved, and the file system it is on."""

    files: Files
    path: str

    @property
    def parent(self) -> str:
        """The folder that holds this one; an empty string for a root."""
        parent = posixpath.dirname(self.path.rstrip("/"))
        # What stands above hdfs://host is only the scheme.
        if parent.endswith(":"):
            return ""
        return parent

    def inside(self, name: str) -> str:
        """Return the path of a file in this folder."""
        return f"{self.path.rstrip('/')}/{name}"

    def beside(self, name: str) -> str:
        """Return the path of a file in the folder that holds this one."""
        return f"{self.parent.rstrip('/')}/{name}"

    def has_data(self) -> bool:
        """Tell whether the folder holds any file that Spark's readers see."""
        files = self.files.data_files(self.path)
        return next(files, None) is not None


def place_of(spark: SparkSession, location: str) -> Place | None:
    """Find a location of a session's as this process sees it; None where it cannot look there.

    On Spark Connect that is so unless the server runs on this machine.
    """
    if is_connect(spark):
        return _place_on_connect(spark, location)
    try:
        files = HadoopFiles(spark, location)
    except Exception:  # no such scheme, which Spark itself will say; or a cluster that keeps Python from the JVM
        return None
    uri = files.qualified.toUri()
    if uri.getScheme() == "file":
        return Place(LocalFiles(), os.path.realpath(uri.getPath()))
    return Place(files, str(files.qualified.toString()))


def _place_on_connect(spark: SparkSession, location: str) -> Place | None:
    path = local_path(location)
    host = str(getattr(spark.client, "host", ""))  # type: ignore[attr-defined]
    if path is None or host not in _THIS_MACHINE:
        return None
    # A relative path is relative to the server, which only a server that this process started shares.
    is_own_server = "SPARK_LOCAL_REMOTE" in os.environ
    if not is_own_server and not path.is_absolute():
        return None
    return Place(LocalFiles(), os.path.realpath(path))


def path_of_uri(uri: str) -> str:
    """Return the full path of a file, of the form that `Files.data_files` gives, from an encoded URI of Spark's."""
    parsed = urlparse(uri)
    path = unquote(parsed.path)
    if parsed.scheme in ("", "file"):
        return os.path.realpath(path)
    return f"{parsed.scheme}://{parsed.netloc}{path}"
