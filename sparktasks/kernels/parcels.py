"""Folders on the executor: references that kernels carry, and how the folder that one names is found here.

What was sent is written out by the first process that asks for it, checked against the folder's hash, and kept in the
machine's store.
"""

from __future__ import annotations

import logging
import shutil
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from pickle import UnpicklingError
from typing import Any

from sparktasks.errors import BundleError, DeliveryError
from sparktasks.runtime.bundle import Bundle, open_bundle
from sparktasks.runtime.cache import ProcessCache
from sparktasks.runtime.folders import Folder, open_folder
from sparktasks.runtime.store import Entry, Store

log = logging.getLogger(__name__)

DELIVERY_SETTING = "spark.sparktasks.delivery"


@dataclass(frozen=True)
class FolderRef:
    """What a kernel carries instead of a folder: where it is on the driver, and what it must contain.

    ``names`` are the files by which the folder is opened.
    """

    folder: str
    names: tuple[str, ...]
    hash: str
    stamp: str

    @classmethod
    def of(cls, folder: Folder) -> FolderRef:
        """Refer to an opened folder."""
        return cls(str(folder.folder), folder.files, folder.hash, folder.stamp)

    def open(self, place: str | Path) -> Folder:
        """Open the folder at another place."""
        return open_folder(place, self.names)


@dataclass(frozen=True)
class BundleRef(FolderRef):
    """What a kernel carries instead of a model; ``names`` are its graphs."""

    @classmethod
    def of(cls, folder: Folder) -> BundleRef:
        """Refer to an opened bundle."""
        assert isinstance(folder, Bundle)
        return cls(str(folder.folder), folder.models, folder.hash, folder.stamp)

    def open(self, place: str | Path) -> Bundle:
        return open_bundle(place, self.names)


@dataclass(frozen=True)
class Parcel:
    """A folder under way: its files with their sizes, and what holds their bytes (broadcasts of chunks, or names of
    sent files)."""

    hash: str
    way: str
    files: tuple[tuple[str, int], ...]
    parts: tuple[Any, ...]


_parcels: dict[str, Parcel] = {}
_find_file: Callable[[str], str] | None = None


def receive(parcels: Sequence[Parcel], find_file: Callable[[str], str] | None = None) -> None:
    """Tell this process which folders were sent to it; ``find_file`` gives the place of a file that Spark sent."""
    global _find_file
    _find_file = find_file
    for parcel in parcels:
        _parcels[parcel.hash] = parcel


@dataclass(frozen=True)
class _Located:
    """A folder on this machine, and the store's entry that it lies in."""

    folder: Folder
    entry: Entry | None = None

    @property
    def is_there(self) -> bool:
        return self.entry is None or self.entry.content.is_dir()


_located: ProcessCache[_Located] = ProcessCache(limit=64)


def locate(ref: BundleRef) -> Bundle:
    """Return the bundle that a reference names, as `locate_folder` does."""
    bundle = locate_folder(ref)
    assert isinstance(bundle, Bundle)
    return bundle


def locate_folder(ref: FolderRef) -> Folder:
    """Return the folder that a reference names, on this machine; the first process to ask for one that was sent writes
    it out.

    Raises `DeliveryError` where it cannot be had here, or what is here has another content by now.
    """
    located = _located.get(ref, lambda: _locate(ref))
    if not located.is_there:
        located = _locate(ref)
        _located.put(ref, located)
    return located.folder


def _locate(ref: FolderRef) -> _Located:
    parcel = _parcels.get(ref.hash)
    if parcel is None:
        return _opened(ref)
    entry = Store().open("bundles", ref.hash, partial(_unpack, ref, parcel))
    # The store has checked the hash.
    return _Located(ref.open(entry.content).with_hash(ref.hash), entry)


def _unpack(ref: FolderRef, parcel: Parcel, folder: Path) -> None:
    """Write a parcel's files into a folder, and check that they are what was sent."""
    try:
        _UNPACKERS[parcel.way](parcel, folder)
        whole = ref.open(folder).hash == ref.hash
    except (BundleError, EOFError, UnpicklingError) as error:
        log.warning("%s arrived damaged: %s", ref.folder, error)
        whole = False
    if not whole:
        raise DeliveryError(
            f"the files of {ref.folder} did not arrive whole on {socket.gethostname()} by {parcel.way}: their "
            f"hash is not {ref.hash[:12]}. "
            "Run the job again; if it happens again, look at this machine's disk and memory"
        )


def _unpack_chunks(parcel: Parcel, folder: Path) -> None:
    chunks, rest = map(_taken, parcel.parts), memoryview(b"")
    for name, size in parcel.files:
        with open(_place(folder, name), "wb") as file:
            while file.tell() < size:
                rest = rest or memoryview(next(chunks, b""))
                if not rest:
                    raise EOFError(f"{name}: {file.tell()} of {size} bytes arrived")
                rest = rest[file.write(rest[: size - file.tell()]) :]


def _taken(broadcast: Any) -> bytes:
    """Return a chunk and forget it: kept values would make every worker as large as the model."""
    value: bytes = broadcast.value
    broadcast.__dict__.pop("_value", None)
    return value


def _unpack_files(parcel: Parcel, folder: Path) -> None:
    for (name, _), part in zip(parcel.files, parcel.parts, strict=True):
        source = None if _find_file is None else Path(_find_file(part))
        if source is None or not source.is_file():
            raise EOFError(f"{name}: there is no {source}")
        shutil.copyfile(source, _place(folder, name))


def _place(folder: Path, name: str) -> Path:
    target = folder / PurePosixPath(name)
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


_UNPACKERS: dict[str, Callable[[Parcel, Path], None]] = {
    "broadcast": _unpack_chunks,
    "file": _unpack_files,
    "artifact": _unpack_files,
}


def _opened(ref: FolderRef) -> _Located:
    """Open a folder that driver and executors share."""
    if not Path(ref.folder).is_dir():
        raise DeliveryError(
            f"the executor on {socket.gethostname()} cannot see the folder {ref.folder}. "
            "Put it on a path that all machines share (a mounted volume, NFS) and load it from there, or set "
            f"{DELIVERY_SETTING} to auto"
        )
    folder = ref.open(ref.folder)
    if folder.stamp == ref.stamp:
        return _Located(folder.with_hash(ref.hash))
    if folder.hash != ref.hash:
        raise DeliveryError(
            f"{ref.folder} on {socket.gethostname()} holds other files than when the stage was made. Make the stage "
            "again"
        )
    return _Located(folder)
