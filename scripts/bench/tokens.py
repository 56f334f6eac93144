"""How fast RegexTokenizer is: its kernel against a bare loop of the same pattern, and a whole job against the boundary.

    python scripts/bench/tokens.py                   both patterns, 5 interleaved rounds
    python scripts/bench/tokens.py --adapter pandas  the adapter of Spark 3.5 and 4.0

The loop calls the compiled pattern and appends each token's text, begin and end to lists: what anybody would write. The
boundary is a vectorized UDF that makes the same seven fields with pyarrow alone, from white space: what Spark itself
lets through.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from common import Spread, arguments, machine, ratios, seconds, spark_session

PATTERNS = {r"\s+": True, r"\w+|[^\w\s]": False}  # and whether they match the gaps between tokens
CHARACTERS = 12_000_000


def corpus(folder: Path, characters: int) -> list[str]:
    """Return lines of running text, repeated until they have so many characters."""
    lines = []
    for path in sorted(folder.rglob("*.txt")):
        if path.name != "SOURCE.txt":
            lines.extend(
                line for line in path.read_text(encoding="utf-8", errors="replace").split("\n") if line.strip()
            )
    times = characters // max(1, sum(map(len, lines))) + 1
    return (lines * times)[: max(1, int(len(lines) * characters / sum(map(len, lines))))]


def loop(texts: list[str], pattern: str, gaps: bool) -> int:
    """Find tokens as a plain Python loop does; returns how many."""
    compiled = re.compile(pattern)
    words, begins, ends = [], [], []
    for text in texts:
        at = 0
        for match in compiled.finditer(text):
            begin, end = match.span()
            if gaps:
                begin, end, at = at, begin, end
            if end > begin:
                words.append(text[begin:end])
                begins.append(begin)
                ends.append(end)
        if gaps and at < len(text):
            words.append(text[at:])
            begins.append(at)
            ends.append(len(text))
    return len(words)


def kernel_of(pattern: str, gaps: bool) -> Callable[[pa.Array], pa.Array]:
    """Return RegexTokenizer's kernel."""
    from sparktasks import RegexTokenizer

    return RegexTokenizer(pattern=pattern, gaps=gaps).kernel()


def kernel_run(kernel: Callable[[pa.Array], pa.Array], columns: list[pa.Array]) -> int:
    """Run a kernel over windows of documents; returns how many tokens it writes."""
    return sum(len(kernel(column).values) for column in columns)


def documents(texts: list[str]) -> list[pa.Array]:
    """Return document columns of 1,024 rows each, as a plan hands them to kernels."""
    from sparktasks.kernels.assemblers import AssembleDocuments

    assemble = AssembleDocuments("disabled")
    return [assemble(pa.array(texts[start : start + 1024])) for start in range(0, len(texts), 1024)]


def boundary(texts: pa.Array) -> pa.Array:
    """Make annotations of the words between white space, in Arrow alone; offsets take one space between words."""
    from sparktasks.kernels.arrow import repeated
    from sparktasks.kernels.columns import TEXT, assemble, single_maps

    parts = pc.utf8_split_whitespace(texts.cast(pa.string()))
    words, offsets = parts.flatten(), parts.offsets.to_numpy()
    lengths = pc.utf8_length(words).to_numpy()
    starts = np.concatenate([[0], np.cumsum(lengths + 1)])
    begins = starts[:-1] - np.repeat(starts[offsets[:-1]], np.diff(offsets))
    begin, end = pa.array(begins, pa.int32()), pa.array(begins + lengths - 1, pa.int32())
    count = len(words)
    column = assemble(
        np.diff(offsets), repeated("token", count), begin, end, words, single_maps("sentence", repeated("0", count))
    )
    assert column.type == TEXT.column
    return column


def spark_jobs(spark: Any, texts: list[str], adapter: str) -> dict[str, Callable[[], int]]:
    """Return what is timed on Spark: each counts the tokens of all lines."""
    from pyspark.sql import functions as F

    from sparktasks import DocumentAssembler, RegexTokenizer

    spark.conf.set("spark.sparktasks.vectorized", adapter)
    frame = spark.createDataFrame(pa.table({"text": texts}).to_pandas()).repartition(4).cache()
    frame.count()

    def counted(column: Any) -> int:
        sizes = column.select(F.size("token"), F.element_at("token", -1)["end"]).toDF("size", "end")
        return int(sizes.agg(F.sum("size"), F.max("end")).first()[0])

    def ours(pattern: str, gaps: bool) -> Callable[[], int]:
        tokenizer = RegexTokenizer(pattern=pattern, gaps=gaps)
        return lambda: counted(tokenizer.transform(DocumentAssembler().transform(frame)))

    jobs = {f"sparktasks {pattern}": ours(pattern, gaps) for pattern, gaps in PATTERNS.items()}
    if adapter != "pandas":
        from pyspark.sql.functions import arrow_udf

        from sparktasks.spark.types import ANNOTATIONS

        @arrow_udf(ANNOTATIONS)
        def tokens(batches: Iterator[pa.Array]) -> Iterator[pa.Array]:
            for batch in batches:
                yield boundary(batch)

        jobs["boundary"] = lambda: counted(frame.select(tokens("text").alias("token")))
    return jobs


def two_loops(texts: list[str], pattern: str, gaps: bool) -> float:
    """Return how long the loop takes in two processes, each over half of the texts."""
    halves = [(texts[0::2], pattern, gaps), (texts[1::2], pattern, gaps)]
    with get_context("fork").Pool(2) as pool:
        pool.map(len, [(), ()])
        return seconds(lambda: pool.starmap(loop, halves))


def main() -> int:
    """Print both tables."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--characters", type=int, default=CHARACTERS)
    parser.add_argument("--adapter", choices=("auto", "arrow", "pandas"), default="auto")
    options = parser.parse_args()
    texts = corpus(options.data / "plain_text", options.characters)
    characters = sum(map(len, texts))
    print(machine())
    print(f"{len(texts):,} lines, {characters:,} characters; median (lowest-highest) of {options.rounds} rounds\n")

    columns = documents(texts)
    for pattern, gaps in PATTERNS.items():
        print(f"kernel / loop, {pattern:14} {kernel_share(texts, columns, pattern, gaps, options.rounds)}")
    print_jobs(texts, options.adapter, options.rounds)
    return 0


def kernel_share(texts: list[str], columns: list[pa.Array], pattern: str, gaps: bool, rounds: int) -> Spread:
    """Return the kernel's speed as a share of the loop's, in interleaved rounds."""
    kernel = kernel_of(pattern, gaps)
    assert kernel_run(kernel, columns) == loop(texts, pattern, gaps)
    shares = []
    for _ in range(rounds):
        theirs = seconds(lambda: loop(texts, pattern, gaps))
        shares.append(theirs / seconds(lambda: kernel_run(kernel, columns)))
    return Spread.of(shares)


def print_jobs(texts: list[str], adapter: str, rounds: int) -> None:
    """Time whole jobs on Spark, the boundary and two bare processes, in interleaved rounds."""
    characters = sum(map(len, texts))
    spark = spark_session(2)
    jobs = spark_jobs(spark, texts, adapter)
    times: dict[str, list[float]] = {name: [] for name in jobs}
    counts = {name: run() for name, run in jobs.items()}  # opens the workers
    loops: dict[str, list[float]] = {pattern: [] for pattern in PATTERNS}
    for _ in range(rounds):
        for name, run in jobs.items():
            times[name].append(seconds(run))
        for pattern, gaps in PATTERNS.items():
            loops[pattern].append(two_loops(texts, pattern, gaps))
    print()
    for name, values in times.items():
        speed = Spread.of([characters / each / 1e6 for each in values])
        annotations = Spread.of([counts[name] / each / 1e6 for each in values])
        print(f"local[2], {name:24} {speed} M characters/s, {annotations} M annotations/s")
    for pattern, values in loops.items():
        speed = Spread.of([characters / each / 1e6 for each in values])
        print(f"two processes, loop {pattern:14} {speed} M characters/s")
    if "boundary" in times:
        for pattern in PATTERNS:
            print(f"share of the boundary, {pattern:14} {ratios(times['boundary'], times[f'sparktasks {pattern}'])}")


if __name__ == "__main__":
    sys.exit(main())
