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
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from sparktasks.errors import ParamError, listed
from sparktasks.kernels.parcels import DELIVERY_SETTING, Parcel
from sparktasks.runtime.bundle import Bundle

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
    asked = str(spark.conf.get(DELIVERY_SETTING, "auto")).strip().lower()
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
    # A file is sent once and never taken back: its path must not change.
    scratch = Path(spark.sparkContext._temp_dir, "sparktasks")
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
