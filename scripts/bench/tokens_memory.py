"""The memory of a Python worker while one large Arrow batch of token embeddings passes through it.

    python scripts/bench/tokens_memory.py

One partition, one Arrow batch of 10,000 rows of about 25 tokens, 384 numbers a token: 390 MB of vectors leave the
worker. The peak is VmHWM of the worker's process, model and interpreter included.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common import arguments, machine, seconds, spark_session
from corpus import short_passages
from encoder import models

LIMIT = 1024  # MiB
WORDS = 18  # a passage of so many words has about 25 tokens, the two special ones included
PAUSE = 0.05


@contextmanager
def watched() -> Iterator[dict[int, int]]:
    """Follow the Python workers of this process's Spark; the dictionary given maps their process ids to peaks in
    KiB."""
    peaks: dict[int, int] = {}
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(PAUSE):
            for worker in _workers():
                peaks[worker] = max(peaks.get(worker, 0), _status(worker, "VmHWM"))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peaks
    finally:
        stop.set()
        thread.join()


def _workers() -> list[int]:
    """Find the forked children of pyspark.daemon below this process."""
    daemons = {
        int(path.parent.name) for path in Path("/proc").glob("[0-9]*/cmdline") if b"pyspark.daemon" in _read(path)
    }
    return [
        process for process in daemons if _status(process, "PPid") in daemons and os.getpid() in _ancestors(process)
    ]


def _ancestors(process: int) -> Iterator[int]:
    while process > 1:
        process = _status(process, "PPid")
        yield process


def _status(process: int, key: str) -> int:
    found = re.search(rf"^{key}:\s+(\d+)".encode(), _read(Path(f"/proc/{process}/status")), re.MULTILINE)
    return int(found[1]) if found else 0


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # the process ended
        return b""


def main() -> None:
    """Run the command line."""
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, default=10_000)
    options = parser.parse_args()
    from sparktasks import DocumentAssembler, TextEmbedder

    texts = short_passages(options.data, options.rows, WORDS)
    encoder = models(options.model, options.tokenizer).encoder
    spark = spark_session(1, {"spark.sql.execution.arrow.maxRecordsPerBatch": str(options.rows)})
    frame = spark.createDataFrame([(text,) for text in texts], "text string").repartition(1).cache()
    frame.count()
    embedded = TextEmbedder.pretrained(encoder, level="token").transform(DocumentAssembler().transform(frame))
    with watched() as peaks:
        took = seconds(lambda: embedded.write.format("noop").mode("overwrite").save())
    spark.stop()
    peak = max(peaks.values()) / 1024
    print(*(f"{name}: {value}" for name, value in machine().items()), sep="\n")
    print(f"{options.rows:,} rows in one Arrow batch, 384 numbers a token, {took:.0f} s")
    print(f"peak memory of the worker: {peak:.0f} MiB, the limit is {LIMIT}")
    raise SystemExit(peak >= LIMIT)


if __name__ == "__main__":
    main()
