"""How a bundle reaches the process that runs it: today by a path that driver and executors share."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

from sparktasks.errors import DeliveryError
from sparktasks.runtime.bundle import Bundle, open_bundle
from sparktasks.runtime.cache import ProcessCache


@dataclass(frozen=True)
class BundleRef:
    """What a kernel carries instead of a model: where the folder is, and what it must contain."""

    folder: str
    model: str
    hash: str
    stamp: str


def ship(bundle: Bundle) -> BundleRef:
    """Make a bundle reachable from the executors and return the reference that kernels carry."""
    return BundleRef(str(bundle.folder), bundle.model, bundle.hash, bundle.stamp)


_located: ProcessCache[Bundle] = ProcessCache(limit=64)


def locate(ref: BundleRef) -> Bundle:
    """Return the bundle a reference names, on this machine.

    Raises `DeliveryError` where its folder is not here, or holds another model by now.
    """
    return _located.get(ref, lambda: _opened(ref))


def _opened(ref: BundleRef) -> Bundle:
    if not Path(ref.folder).is_dir():
        raise DeliveryError(
            f"the executor on {socket.gethostname()} cannot see the model folder {ref.folder}. "
            "Put it on a path that all machines share (a mounted volume, NFS) and load it from there"
        )
    bundle = open_bundle(ref.folder, ref.model)
    if bundle.stamp == ref.stamp:
        bundle.__dict__["hash"] = ref.hash  # what has not changed need not be hashed again
    elif bundle.hash != ref.hash:
        raise DeliveryError(f"{ref.folder} on {socket.gethostname()} holds another model than when the stage was made. Make the stage again")
    return bundle
