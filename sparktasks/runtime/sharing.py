"""One copy of a model's weights on a machine: the graph is optimised once, and every process maps the same packed
weights.

onnxruntime gives each session a private copy of the weights, in the layout its kernels want. Saved beside the optimised
graph in that layout, they are mapped from the file instead, and all processes share the pages.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import subprocess
import sys
import time
from functools import lru_cache
from pathlib import Path

from sparktasks.errors import DeliveryError
from sparktasks.runtime.accuracy import level_for
from sparktasks.runtime.bundle import Bundle
from sparktasks.runtime.devices import CPU
from sparktasks.runtime.store import Entry, Store, bytes_of

log = logging.getLogger(__name__)

THRESHOLD_VARIABLE = "SPARKTASKS_SHARE_BYTES"
DEFAULT_THRESHOLD = 32 * 1024**2
GRAPH = "model.onnx"
_FORMAT = 1
_ROOM = 2.5  # times the weights: what packing may write, and then some
_LONGEST = 1800  # seconds
_PATIENCE = 600  # seconds until what failed is tried again, on this machine
_CHILD = "import sys; from sparktasks.runtime.session_options import pack; pack(*sys.argv[1:])"


def is_shared(bundle: Bundle) -> bool:
    """Tell whether a graph is large enough for the machine's store to keep what was made of it."""
    return bundle.weight_bytes >= bytes_of(THRESHOLD_VARIABLE, DEFAULT_THRESHOLD)


def shared_graph(bundle: Bundle) -> Entry | None:
    """Return the machine's packed form of a bundle's graph for the CPU, made at first use; None where sharing is not
    worth it or fails."""
    if not is_shared(bundle):
        return None
    try:
        store, key = Store(), _key(bundle)
        entry = store.open("graphs", key, lambda folder: _pack(store, bundle, key, folder))
    except (DeliveryError, _NotPacked) as error:
        log.warning("%s: every process loads its own copy of the weights: %s", bundle.model_path, error)
        bundle.check_unchanged()
        return None
    return entry


class _NotPacked(Exception):
    """Why a graph could not be packed."""


def _pack(store: Store, bundle: Bundle, key: str, folder: Path) -> None:
    """Optimise and pack in a process of its own: it takes several times the model in memory, and gives none of it
    back."""
    failed = store.root / "locks" / f"graphs-{key}.failed"
    with store.alone("packing"):
        if failed.exists() and time.time() - failed.stat().st_mtime < _PATIENCE:
            raise _NotPacked(f"packing failed less than {_PATIENCE // 60} minutes ago")
        needed = int(_ROOM * bundle.weight_bytes)
        if store.free() < needed:
            raise _NotPacked(f"{store.root} has {store.free() / 1e6:,.0f} MB free, {needed / 1e6:,.0f} MB are wanted")
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        level = str(level_for(bundle.graph))
        command = [sys.executable, "-c", _CHILD, str(bundle.model_path), str(folder / GRAPH), level]
        try:
            done = subprocess.run(
                command,
                env=environment,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                timeout=_LONGEST,
            )
            told = f"ended with status {done.returncode}: {done.stderr[-2000:]}" if done.returncode else ""
        except subprocess.TimeoutExpired:
            told = f"took longer than {_LONGEST // 60} minutes"
        if told or not (folder / GRAPH).is_file():
            failed.touch()
            raise _NotPacked(f"packing {told}")
        bundle.check_content()  # the child read the file later than it was hashed


def _key(bundle: Bundle) -> str:
    import onnxruntime

    parts = [str(_FORMAT), bundle.hash, bundle.model, onnxruntime.__version__, CPU, _processor()]
    level = level_for(bundle.graph)
    if level:
        parts.append(f"accuracy level {level}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


@lru_cache(maxsize=1)
def _processor() -> str:
    """Say what the kernels' choice of a layout depends on: the processor's kind and instruction sets."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return f"{platform.system()} {platform.machine()} {platform.processor()} {flags}"
