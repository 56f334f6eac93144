"""How a bundle reaches the processes that run it.

    path        driver and executors see one folder: local Spark, and /Volumes, /dbfs, /Workspace
    broadcast   classic clusters: the files in chunks, once per application and content, however many stages use them
    file        classic clusters with spark.io.encryption.enabled, where every worker would load a whole broadcast
    artifact    Spark Connect

What arrives on an executor is checked against the bundle's hash and kept in the machine's store.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from pickle import UnpicklingError
from typing import Any

from pyspark import SparkFiles
from pyspark.sql import SparkSession

from sparktasks.errors import BundleError, DeliveryError, ParamError, listed
from sparktasks.runtime.bundle import Bundle, open_bundle
from sparktasks.runtime.cache import ProcessCache
from sparktasks.runtime.store import Entry, Store

log = logging.getLogger(__name__)

DELIVERY_SETTING = "spark.sparktasks.delivery"
CHUNK = 16 * 1024 * 1024
_SHARED_PATHS = ("/Volumes/", "/dbfs/", "/Workspace/")


@dataclass(frozen=True)
class BundleRef:
    """What a kernel carries instead of a model: where the folder is on the driver, and what it must contain."""

    folder: str
    model: str
    hash: str
    stamp: str

    @classmethod
    def of(cls, bundle: Bundle) -> BundleRef:
        """Refer to an opened bundle."""
        return cls(str(bundle.folder), bundle.model, bundle.hash, bundle.stamp)


@dataclass(frozen=True)
class Parcel:
    """A bundle under way: its files with their sizes, and what holds their bytes (broadcasts of chunks, or names of
    sent files)."""

    hash: str
    way: str
    files: tuple[tuple[str, int], ...]
    parts: tuple[Any, ...]


# -- on the driver


class _Shipment:
    """A parcel that was sent; when its last user is gone, the executors need not keep it in memory any more."""

    def __init__(self, parcel: Parcel) -> None:
        self.parcel = parcel
        weakref.finalize(self, _release, parcel).atexit = False


def _release(parcel: Parcel) -> None:
    if parcel.way == "broadcast":  # a thread of its own: this may run inside another call to the JVM
        threading.Thread(target=_unpersist, args=(parcel.parts,), daemon=True).start()


def _unpersist(broadcasts: Sequence[Any]) -> None:
    try:
        for broadcast in broadcasts:
            broadcast.unpersist()
    except Exception as error:  # the application ended meanwhile, and its broadcasts with it
        log.debug("broadcasts were not released: %s", error)


_shipments: weakref.WeakValueDictionary[tuple[str, str, str], _Shipment] = weakref.WeakValueDictionary()
_kept: weakref.WeakKeyDictionary[Bundle, dict[tuple[str, str, str], _Shipment]] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def deliver(bundles: Sequence[Bundle], spark: SparkSession) -> list[Parcel]:
    """Send bundles to where a session's executors find them; what was sent before is not sent again. Equal bundles are
    one parcel."""
    found = {}
    for bundle in bundles:
        way = way_of(spark, bundle.folder)
        if way != "path":
            key = (_application(spark), bundle.hash, way)
            with _lock:
                shipment = _shipments.get(key) or _Shipment(_sent(bundle, way, spark))
                _shipments[key] = _kept.setdefault(bundle, {})[key] = shipment
            found[bundle.hash] = shipment.parcel
    return list(found.values())


def way_of(spark: SparkSession, folder: Path) -> str:
    """Choose how a folder is delivered; ``spark.sparktasks.delivery`` forces it. `ParamError` where the session lacks
    that way."""
    connect = is_connect(spark)
    allowed = ("path", "artifact") if connect else ("path", "broadcast", "file")
    asked = str(spark.conf.get(DELIVERY_SETTING, "auto"))
    if asked not in ("auto", *allowed):
        kind = "Spark Connect" if connect else "classic Spark"
        raise ParamError(f"{DELIVERY_SETTING}={asked!r} is not allowed on {kind}: it takes 'auto', {listed(allowed)}")
    return asked if asked != "auto" else _best_way(spark, folder, connect)


def is_connect(spark: SparkSession) -> bool:
    """Tell whether a session is a Spark Connect client."""
    return not hasattr(spark, "_jsparkSession")


def _best_way(spark: SparkSession, folder: Path, connect: bool) -> str:
    if str(folder).startswith(_SHARED_PATHS):
        return "path"
    if connect:
        return "artifact"
    context = spark.sparkContext
    master = str(context.master)
    if master.startswith("local") and not master.startswith("local-cluster"):
        return "path"
    return "file" if context.getConf().get("spark.io.encryption.enabled", "false") == "true" else "broadcast"


def _application(spark: SparkSession) -> str:
    return str(spark.session_id) if is_connect(spark) else str(spark.sparkContext.applicationId)  # type: ignore[attr-defined]


def _sent(bundle: Bundle, way: str, spark: SparkSession) -> Parcel:
    bundle.check_unchanged()
    files = tuple((name, (bundle.folder / name).stat().st_size) for name in bundle.files)
    parts = _SENDERS[way](bundle, spark)
    bundle.check_unchanged()
    log.info("sent %s by %s: %s bytes", bundle.folder, way, bundle.size)
    return Parcel(bundle.hash, way, files, tuple(parts))


def _send_broadcast(bundle: Bundle, spark: SparkSession) -> list[Any]:
    from tqdm.auto import tqdm

    context, parts = spark.sparkContext, []
    with tqdm(total=bundle.size, desc=f"Sending {bundle.folder.name}", unit="B", unit_scale=True, delay=2) as bar:
        for chunk in _chunks(bundle):
            parts.append(context.broadcast(chunk))
            bar.update(len(chunk))
    return parts


def _chunks(bundle: Bundle) -> Iterator[bytes]:
    """Read all files, one behind the other, in pieces of one size."""
    rest = b""
    for name in bundle.files:
        with open(bundle.folder / name, "rb") as file:
            while piece := file.read(CHUNK - len(rest)):
                rest += piece
                if len(rest) == CHUNK:
                    yield rest
                    rest = b""
    if rest:
        yield rest


def _send_file(bundle: Bundle, spark: SparkSession) -> list[Any]:
    scratch = Path(
        spark.sparkContext._temp_dir, "sparktasks"
    )  # a file is sent once and never taken back: its path must not change
    scratch.mkdir(exist_ok=True)
    return _copied(bundle, lambda path: spark.sparkContext.addFile(str(path)), scratch)


def _send_artifact(bundle: Bundle, spark: SparkSession) -> list[Any]:
    with tempfile.TemporaryDirectory() as scratch:
        return _copied(bundle, lambda path: spark.addArtifacts(str(path), file=True), Path(scratch))


def _copied(bundle: Bundle, send: Callable[[Path], None], scratch: Path) -> list[Any]:
    """Send each file under a name of its own: executors find what was sent by its bare name."""
    from tqdm.auto import tqdm

    names = []
    for number, name in enumerate(tqdm(bundle.files, desc=f"Sending {bundle.folder.name}", unit="file", delay=2)):
        link = scratch / f"sparktasks-{bundle.hash[:32]}-{number}"
        if not link.exists():
            # whole or not at all; a link would be sent under its target's name, or with what its target becomes
            shutil.copyfile(bundle.folder / name, scratch / "copy")
            os.replace(scratch / "copy", link)
        send(link)
        names.append(link.name)
    return names


_SENDERS: dict[str, Callable[[Bundle, SparkSession], list[Any]]] = {
    "broadcast": _send_broadcast,
    "file": _send_file,
    "artifact": _send_artifact,
}


# -- on the executor

_parcels: dict[str, Parcel] = {}


def receive(parcels: Sequence[Parcel]) -> None:
    """Tell this process where bundles that were sent are to be had."""
    for parcel in parcels:
        _parcels[parcel.hash] = parcel


@dataclass(frozen=True)
class _Located:
    """A bundle on this machine, and the store's entry that it lies in."""

    bundle: Bundle
    entry: Entry | None = None

    @property
    def is_there(self) -> bool:
        return self.entry is None or self.entry.content.is_dir()


_located: ProcessCache[_Located] = ProcessCache(limit=64)


def locate(ref: BundleRef) -> Bundle:
    """Return the bundle a reference names, on this machine; the first process to ask for one that was sent writes it
    out.

    Raises `DeliveryError` where it cannot be had here, or what is here is another model by now.
    """
    found = _located.get(ref, lambda: _found(ref))
    if not found.is_there:
        found = _found(ref)
        _located.put(ref, found)
    return found.bundle


def _found(ref: BundleRef) -> _Located:
    parcel = _parcels.get(ref.hash)
    return _opened(ref) if parcel is None else _received(ref, parcel)


def _received(ref: BundleRef, parcel: Parcel) -> _Located:
    entry = Store().open("bundles", ref.hash, partial(_unpack, ref, parcel))
    bundle = open_bundle(entry.content, ref.model)
    bundle.__dict__["hash"] = ref.hash  # the store has checked it
    return _Located(bundle, entry)


def _unpack(ref: BundleRef, parcel: Parcel, folder: Path) -> None:
    """Write a parcel's files into a folder, and check that they are what was sent."""
    try:
        _UNPACKERS[parcel.way](parcel, folder)
        whole = open_bundle(folder, ref.model).hash == ref.hash
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
        source = Path(SparkFiles.get(part))
        if not source.is_file():
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


def _opened(ref: BundleRef) -> _Located:
    """Open a folder that driver and executors share."""
    if not Path(ref.folder).is_dir():
        raise DeliveryError(
            f"the executor on {socket.gethostname()} cannot see the model folder {ref.folder}. "
            "Put it on a path that all machines share (a mounted volume, NFS) and load it from there, or set "
            f"{DELIVERY_SETTING} to auto"
        )
    bundle = open_bundle(ref.folder, ref.model)
    if bundle.stamp == ref.stamp:
        bundle.__dict__["hash"] = ref.hash  # what has not changed need not be hashed again
    elif bundle.hash != ref.hash:
        raise DeliveryError(
            f"{ref.folder} on {socket.gethostname()} holds another model than when the stage was made. Make "
            "the stage again"
        )
    return _Located(bundle)
