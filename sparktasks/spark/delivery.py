"""How a folder, with a model or a dictionary in it, reaches the processes that read it.

    path        driver and executors see one folder: local Spark, and /Volumes, /dbfs, /Workspace
    broadcast   classic clusters: the files in chunks, once per application and content, however many stages use them
    file        classic clusters with spark.io.encryption.enabled, where every worker would load a whole broadcast
    artifact    Spark Connect

What arrives on an executor is checked against the folder's hash and kept in the machine's store.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from sparktasks.errors import ParamError, listed
from sparktasks.kernels.parcels import DELIVERY_SETTING, Parcel
from sparktasks.runtime.folders import Folder

log = logging.getLogger(__name__)

CHUNK = 16 * 1024 * 1024
_SHARED_PATHS = ("/Volumes/", "/dbfs/", "/Workspace/")


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
_kept: weakref.WeakKeyDictionary[Folder, dict[tuple[str, str, str], _Shipment]] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def deliver(folders: Sequence[Folder], spark: SparkSession) -> list[Parcel]:
    """Send folders to where a session's executors find them; what was sent before is not sent again. Equal folders are
    one parcel."""
    parcels = {}
    for folder in folders:
        way = way_of(spark, folder.folder)
        if way == "path":
            continue
        key = (_application(spark), folder.hash, way)
        with _lock:
            shipment = _shipments.get(key) or _Shipment(_sent(folder, way, spark))
            # A shipment lives as long as some folder's user keeps it.
            _shipments[key] = _kept.setdefault(folder, {})[key] = shipment
        parcels[folder.hash] = shipment.parcel
    return list(parcels.values())


def way_of(spark: SparkSession, folder: Path) -> str:
    """Choose how a folder is delivered; ``spark.sparktasks.delivery`` forces it. `ParamError` where the session lacks
    that way."""
    connect = is_connect(spark)
    allowed = ("path", "artifact") if connect else ("path", "broadcast", "file")
    asked = str(spark.conf.get(DELIVERY_SETTING, "auto")).strip().lower()
    if asked == "auto":
        return _best_way(spark, folder, connect)
    if asked not in allowed:
        kind = "Spark Connect" if connect else "classic Spark"
        raise ParamError(f"{DELIVERY_SETTING}={asked!r} is not allowed on {kind}: it takes 'auto', {listed(allowed)}")
    return asked


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
    encrypts = context.getConf().get("spark.io.encryption.enabled", "false") == "true"
    return "file" if encrypts else "broadcast"


def _application(spark: SparkSession) -> str:
    if is_connect(spark):
        return str(spark.session_id)  # type: ignore[attr-defined]
    return str(spark.sparkContext.applicationId)


def _sent(folder: Folder, way: str, spark: SparkSession) -> Parcel:
    folder.check_unchanged()
    files = tuple((name, (folder.folder / name).stat().st_size) for name in folder.files)
    parts = _SENDERS[way](folder, spark)
    # Once more: somebody may have written into the folder while it was sent.
    folder.check_unchanged()
    log.info("sent %s by %s: %s bytes", folder.folder, way, folder.size)
    return Parcel(folder.hash, way, files, tuple(parts))


def _send_broadcast(folder: Folder, spark: SparkSession) -> list[Any]:
    from tqdm.auto import tqdm

    context = spark.sparkContext
    parts = []
    with tqdm(total=folder.size, desc=f"Sending {folder.folder.name}", unit="B", unit_scale=True, delay=2) as bar:
        for chunk in _chunks(folder):
            parts.append(context.broadcast(chunk))
            bar.update(len(chunk))
    return parts


def _chunks(folder: Folder) -> Iterator[bytes]:
    """Read all files, one behind the other, in pieces of one size."""
    rest = b""
    for name in folder.files:
        with open(folder.folder / name, "rb") as file:
            while piece := file.read(CHUNK - len(rest)):
                rest += piece
                if len(rest) == CHUNK:
                    yield rest
                    rest = b""
    if rest:
        yield rest


def _send_file(folder: Folder, spark: SparkSession) -> list[Any]:
    # A file is sent once and never taken back: its path must not change.
    scratch = Path(spark.sparkContext._temp_dir, "sparktasks")
    scratch.mkdir(exist_ok=True)
    return _copied(folder, lambda path: spark.sparkContext.addFile(str(path)), scratch)


def _send_artifact(folder: Folder, spark: SparkSession) -> list[Any]:
    with tempfile.TemporaryDirectory() as scratch:
        return _copied(folder, lambda path: spark.addArtifacts(str(path), file=True), Path(scratch))


def _copied(folder: Folder, send: Callable[[Path], None], scratch: Path) -> list[Any]:
    """Send each file under a name of its own: executors find what was sent by its bare name."""
    from tqdm.auto import tqdm

    names = []
    for number, name in enumerate(tqdm(folder.files, desc=f"Sending {folder.folder.name}", unit="file", delay=2)):
        link = scratch / f"sparktasks-{folder.hash[:32]}-{number}"
        if not link.exists():
            # whole or not at all; a link would be sent under its target's name, or with what its target becomes
            shutil.copyfile(folder.folder / name, scratch / "copy")
            os.replace(scratch / "copy", link)
        send(link)
        names.append(link.name)
    return names


_SENDERS: dict[str, Callable[[Folder, SparkSession], list[Any]]] = {
    "broadcast": _send_broadcast,
    "file": _send_file,
    "artifact": _send_artifact,
}
