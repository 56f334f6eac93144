"""How many threads this process may use for models.

onnxruntime's pool ignores ``OMP_NUM_THREADS``, and both it and the tokenizers size themselves by the host's cores; in a
Spark worker that means every task fights every other one. Spark's adapters call `use` with ``spark.task.cpus``.
"""

from __future__ import annotations

import os

_threads: int | None = None


def use(count: int) -> None:
    """Set the number of threads for sessions and tokenizers opened from now on."""
    global _threads
    if count != _threads:
        _threads = count
        # Tokenizers read these when their pool starts, and know no other way to be told.
        os.environ["RAYON_NUM_THREADS"] = str(count)
        os.environ["TOKENIZERS_PARALLELISM"] = "true" if count > 1 else "false"


def count() -> int:
    """Return the number of threads to use: what `use` was told, else the cores this process may run on."""
    if _threads is not None:
        return _threads
    # The affinity respects taskset and cpusets, but only Linux has it.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
