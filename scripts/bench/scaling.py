"""Rows a second against the number of workers and of rows: what one more row costs, and what a job costs before its
first row.

    python scripts/bench/scaling.py                                 # local[1] and local[2], into docs/bench
    python scripts/bench/scaling.py --cores 1 2 4 --rows 500 4000   # on a larger machine

Each number of workers gets a Spark session in a process of its own. The time of a warm job is fitted as
``fixed + rows * cost``; ``cost * workers`` is the processor time that a row needs, which is what extrapolates.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from common import ROOT, Spread, arguments, machine, seconds, spark_session
from corpus import mixed_texts
from encoder import models
from peers import Job, sparktasks_peer
from text import frames_of

ROUNDS = 5


def measure(options: argparse.Namespace, cores: int) -> dict[str, list[float]]:
    """Time the job on so many cores, the numbers of rows interleaved."""
    spark = spark_session(cores)
    texts = mixed_texts(options.data, max(options.rows))
    jobs = {}
    for rows in options.rows:
        job = Job(models(options.model, options.tokenizer), texts[:rows], 256, cores)
        jobs[rows] = sparktasks_peer(str(rows), job, frames_of(spark, job.texts, 2 * cores))
        jobs[rows].warm()
    found: dict[str, list[float]] = {str(rows): [] for rows in jobs}
    for _ in range(ROUNDS):
        for rows, peer in jobs.items():
            found[str(rows)].append(seconds(peer.run))
    spark.stop()
    return found


def report(found: dict[int, dict[str, list[float]]], folder: Path) -> None:
    """Write the table."""
    lines = ["| workers | rows | seconds | rows/s |", "|---|---|---|---|"]
    fits = ["| workers | fixed, s | a row, ms | processor time a row, ms |", "|---|---|---|---|"]
    for cores, times in found.items():
        for rows, each in times.items():
            lines.append(
                f"| {cores} | {int(rows):,} | {Spread.of(each)} | {Spread.of([int(rows) / value for value in each])} |"
            )
        points = [(int(rows), Spread.of(each).median) for rows, each in times.items()]
        cost, fixed = np.polyfit(*zip(*points, strict=True), 1)
        fits.append(f"| {cores} | {fixed:.2f} | {1000 * cost:.2f} | {1000 * cost * cores:.2f} |")
    facts = {
        "rounds": f"{ROUNDS}, interleaved; median (lowest-highest)",
        "model and texts": "those of text.md; every worker runs one task on 1 thread",
    }
    header = [f"- {name}: {value}" for name, value in {**facts, **machine()}.items()]
    text = "\n".join(
        [
            "# Scaling: rows a second against workers and rows",
            "",
            *header,
            "",
            *lines,
            "",
            "The fit `seconds = fixed + rows x cost`:",
            "",
            *fits,
            "",
        ]
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scaling.md").write_text(text, encoding="utf-8")
    print(text)


def main() -> None:
    """Run the command line."""
    parser = arguments(__doc__)
    parser.add_argument("--cores", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--rows", type=int, nargs="*", default=[300, 1000, 3000])
    parser.add_argument(
        "--out", type=Path, default=ROOT / "docs" / "bench", help="folder for scaling.md (default: %(default)s)"
    )
    parser.add_argument("--work", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        print(json.dumps(measure(options, options.work)))
        return
    found = {}
    for cores in options.cores:
        done = subprocess.run(
            [sys.executable, *sys.argv, "--work", str(cores)], stdout=subprocess.PIPE, text=True, check=True
        )
        found[cores] = json.loads(done.stdout.splitlines()[-1])
    report(found, options.out)


if __name__ == "__main__":
    main()
