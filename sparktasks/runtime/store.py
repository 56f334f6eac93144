"""The machine's store: what one process makes and every other one uses, kept from one application to the next.

    ROOT/<uid>/<kind>/<key>/content/        the files of an entry
    ROOT/<uid>/<kind>/<key>/manifest.json   their names, sizes, change times and hashes, checked at each open
    ROOT/<uid>/locks/                       a lock for making each entry, and one for using it
    ROOT/<uid>/scratch/                     entries in the making

An entry appears under its name when it is whole, by a rename. Whoever uses it holds a shared lock, so that it is not
evicted; the kernel drops the locks of a process that was killed.
"""

from __future__ import annotations

import errno
import getpass
import logging
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sparktasks.errors import DeliveryError, ParamError
from sparktasks.runtime.locks import Lock, has_locks
from sparktasks.runtime.manifests import (
    CONTENT,
    MANIFEST,
    is_whole,
    last_use,
    listed_bytes,
    sync,
    write_manifest,
)

log = logging.getLogger(__name__)

ROOT_VARIABLE = "SPARKTASKS_CACHE"
LIMIT_VARIABLE = "SPARKTASKS_CACHE_BYTES"
DEFAULT_LIMIT = 32 * 1024**3
_OWN_FOLDERS = ("locks", "scratch")


def cache_root() -> Path:
    """Return the folder for what is kept on this machine: ``SPARKTASKS_CACHE``, else ``~/.cache/sparktasks``."""
    if asked := os.environ.get(ROOT_VARIABLE):
        return Path(asked).expanduser().absolute()
    # It stays as it is where the user has no home.
    home = os.path.expanduser("~")
    if home != "~" and os.access(home, os.W_OK):
        return Path(home) / ".cache" / "sparktasks"
    # Executors often run without a home.
    return Path(tempfile.gettempdir()) / f"sparktasks-{_user()}"


def bytes_of(variable: str, default: int) -> int:
    """Return the number of bytes that an environment variable says; `ParamError` where it is not a number."""
    asked = os.environ.get(variable, str(default))
    if not asked.isdecimal():
        raise ParamError(
            f"the variable {variable}={asked!r} is not allowed: it takes a number of bytes, such as {default}"
        )
    return int(asked)


def _user() -> str:
    # Windows has no user ids.
    return str(os.getuid()) if hasattr(os, "getuid") else getpass.getuser()


@dataclass(frozen=True)
class Entry:
    """An entry in use: it is not evicted while this object lives."""

    folder: Path
    lock: Lock

    @property
    def content(self) -> Path:
        """The folder that holds the entry's files."""
        return self.folder / CONTENT


class Store:
    """Entries below a root; together they stay within ``limit`` bytes, as far as those in use allow."""

    def __init__(self, root: Path | None = None, limit: int | None = None) -> None:
        self.root = (root or cache_root()) / _user()
        self.limit = limit or bytes_of(LIMIT_VARIABLE, DEFAULT_LIMIT)

    def open(self, kind: str, key: str, make: Callable[[Path], None]) -> Entry:
        """Return an entry, which ``make`` writes into the folder it is given if it is not here, whole.

        One process of the machine makes it, the others wait. Raises `DeliveryError` where this machine cannot hold it.
        """
        folder = self.root / kind / key
        with self._explained():
            self._prepare()
            entry = Entry(folder, self._lock(kind, key, "use").share())
            if not is_whole(folder):
                self._sweep()
                with self._lock(kind, key, "make").take():
                    # Another process may have made it while this one waited.
                    if not is_whole(folder):
                        self._make(folder, make)
                self.evict()
            os.utime(folder / MANIFEST)
        return entry

    def keys(self, kind: str) -> list[str]:
        """Return the keys of one kind of entry."""
        return sorted(path.name for path in (self.root / kind).glob("*"))

    def damaged(self) -> list[Path]:
        """Read every entry whole and return the folders of those that do not hold what was put there."""
        damaged = []
        for folder in self.folders():
            if not is_whole(folder, thoroughly=True):
                damaged.append(folder)
        return damaged

    def remove(self, folder: Path) -> bool:
        """Take an entry away unless it is in use."""
        with self._lock(folder.parent.name, folder.name, "use") as lock:
            if not lock.try_take():
                return False
            self._discard(folder)
            return True

    def evict(self) -> None:
        """Take away what was not used for longest, until the entries are within the limit."""
        sizes = {folder: self.size(folder) for folder in self.folders()}
        total = sum(sizes.values())
        for folder in sorted(sizes, key=last_use):
            if total <= self.limit:
                return
            if self.remove(folder):
                total -= sizes[folder]
                log.info("evicted %s, %s bytes", folder, sizes[folder])

    def _sweep(self) -> None:
        """Take away what killed processes left half made: nobody holds the locks of those."""
        for left in (self.root / "scratch").glob("*.*"):
            # A scratch folder is called by the entry, and a suffix that makes its name unique.
            entry_name = left.name.rpartition(".")[0]
            with Lock(self.root / "locks" / f"{entry_name}.make") as lock:
                if lock.try_take():
                    shutil.rmtree(left, ignore_errors=True)

    def folders(self) -> list[Path]:
        """Return the folder of every entry."""
        folders: list[Path] = []
        for kind in self.root.glob("*"):
            if kind.is_dir() and kind.name not in _OWN_FOLDERS:
                folders.extend(kind.glob("*"))
        return sorted(folders)

    def size(self, folder: Path) -> int:
        """Return the bytes of an entry's files."""
        return listed_bytes(folder)

    def _prepare(self) -> None:
        if not has_locks():
            raise DeliveryError(
                f"there are no file locks on {socket.gethostname()}, so that models cannot be kept for other processes"
            )
        self.root.parent.mkdir(parents=True, exist_ok=True)
        self.root.mkdir(mode=0o700, exist_ok=True)
        for name in _OWN_FOLDERS:
            (self.root / name).mkdir(mode=0o700, exist_ok=True)

        # Whoever can write there could put a model in another one's place.
        state = os.stat(self.root)
        others_may_write = state.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if others_may_write or state.st_uid != os.getuid():
            raise PermissionError(errno.EPERM, f"others than user {os.getuid()} may write there")

    def _lock(self, kind: str, key: str, purpose: str) -> Lock:
        return Lock(self.root / "locks" / f"{kind}-{key}.{purpose}")

    def alone(self, purpose: str) -> Lock:
        """Wait until no other process does the same, and hold its lock: ``with store.alone("packing"):``."""
        with self._explained():
            self._prepare()
            return Lock(self.root / "locks" / purpose).take()

    def free(self) -> int:
        """Return the free bytes of the root's disk."""
        return shutil.disk_usage(self.root).free

    def _make(self, folder: Path, make: Callable[[Path], None]) -> None:
        scratch = Path(tempfile.mkdtemp(prefix=f"{folder.parent.name}-{folder.name}.", dir=self.root / "scratch"))
        try:
            (scratch / CONTENT).mkdir()
            make(scratch / CONTENT)
            write_manifest(scratch)
            self._discard(folder)
            folder.parent.mkdir(mode=0o700, exist_ok=True)
            os.rename(scratch, folder)
            sync(folder.parent)
            log.info("made %s", folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _discard(self, folder: Path) -> None:
        """Take a folder away in one step; whoever has its files open or mapped keeps them."""
        with Lock(self.root / "locks" / "gone.make").share():
            if folder.exists():
                aside = Path(tempfile.mkdtemp(prefix="gone.", dir=self.root / "scratch"))
                os.rename(folder, aside / folder.name)
                shutil.rmtree(aside, ignore_errors=True)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except DeliveryError:  # explained already
            raise
        except OSError as error:
            raise DeliveryError(
                f"{socket.gethostname()} cannot keep models in {self.root}: {error.strerror or error}{self._room()}. "
                f"Set the variable {ROOT_VARIABLE} to a folder with room that this user may write"
            ) from error

    def _room(self) -> str:
        try:
            return f" ({self.free() / 1e6:,.0f} MB free)"
        except OSError:
            return ""
