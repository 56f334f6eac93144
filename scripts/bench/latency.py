"""What LocalPipeline adds to one text: ``annotate`` against the bare tokenizer and session, on the same number of
threads.

    python scripts/bench/latency.py
    python scripts/bench/latency.py --bundle FOLDER_OR_STARTER --threads 2

Every text goes both ways in turn. Processor time is printed beside the time that passed: it says more on a busy
machine.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from common import SHARED, machine
from corpus import mixed_texts
from plain import PlainClassifier

LIMIT = 1000  # microseconds
LONGEST = 200  # characters


def clocked(work: Callable[[str], object], text: str) -> tuple[float, float]:
    """Return the microseconds that passed during one call, and those of the processor."""
    passed, busy = time.perf_counter_ns(), time.process_time_ns()
    work(text)
    return (time.perf_counter_ns() - passed) / 1000, (time.process_time_ns() - busy) / 1000


def measure(ways: tuple[Callable[[str], object], Callable[[str], object]], texts: list[str]) -> np.ndarray:
    """Time both ways on every text, the first one changing from text to text; microseconds, shape (texts, ways,
    clocks)."""
    found = np.empty((len(texts), 2, 2))
    for number, text in enumerate(texts):
        for which in (number % 2, 1 - number % 2):
            found[number, which] = clocked(ways[which], text)
    return found


def bare_call(folder: Path, max_length: int | None, threads: int) -> Callable[[str], object]:
    """Return the least that classifies a text: encode, run, softmax, best label."""
    model = PlainClassifier(folder, max_length, threads)
    return lambda text: model.labels[model.scores([text])[0].argmax()]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--bundle", default="intents-clinc150", help="folder or starter of a text classifier (default: %(default)s)"
    )
    parser.add_argument(
        "--data", type=Path, default=SHARED / "data", help="folder with the text corpora (default: %(default)s)"
    )
    parser.add_argument("--texts", type=int, default=500)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    from sparktasks import DocumentAssembler, LocalPipeline, TextClassifier
    from sparktasks.runtime import threads

    threads.use(options.threads)
    classifier = TextClassifier.pretrained(options.bundle)
    bundle, pipeline = classifier.getBundle(), LocalPipeline([DocumentAssembler(), classifier])
    texts = [text for text in mixed_texts(options.data, 3 * options.texts) if len(text) <= LONGEST][: options.texts]
    ways = (pipeline.annotate, bare_call(bundle.folder, bundle.max_length, options.threads))
    measure(ways, texts[:20])
    found = measure(ways, texts)
    report(
        found,
        (
            f"{options.bundle}, {len(texts)} single texts of {min(map(len, texts))} to {LONGEST} characters, "
            f"threads: {options.threads}"
        ),
    )


def report(found: np.ndarray, what: str) -> None:
    """Print the medians, and exit with status 1 where the added time is not below the limit."""
    (ours, ours_busy), (bare, bare_busy) = np.median(found, axis=0)
    added, added_busy = np.median(found[:, 0] - found[:, 1], axis=0)
    print(*(f"{name}: {value}" for name, value in machine().items()), what, sep="\n")
    print("medians in microseconds         passed  processor")
    print(f"LocalPipeline.annotate       {ours:9,.0f}  {ours_busy:9,.0f}")
    print(f"encode and run alone         {bare:9,.0f}  {bare_busy:9,.0f}")
    print(f"added, limit {LIMIT:,}           {added:9,.0f}  {added_busy:9,.0f}")
    raise SystemExit(int(added >= LIMIT))


if __name__ == "__main__":
    main()
