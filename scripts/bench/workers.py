"""What a fresh Spark worker costs: loading a classifier's kernel, and ``head(3)``, after which Spark ends its workers.

    python scripts/bench/workers.py                      this checkout
    python scripts/bench/workers.py --base ../other      paired with another checkout, in interleaved rounds

The kernel is loaded in a process that has imported what Spark's own worker imports before it runs a function.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from common import ROOT, Spread, arguments, machine, ratios

LOAD = """
import pickle, sys, time
import pyspark.worker
begun = time.perf_counter()
pickle.loads(bytes.fromhex(sys.argv[1]))
print(time.perf_counter() - begun)
"""

KERNEL = """
import pickle
from pyspark.cloudpickle import dumps
from sparktasks import TextClassifier
print(dumps(TextClassifier.pretrained().kernel()).hex())
"""

HEAD = """
import json, os, sys, time
os.environ["PYSPARK_PYTHON"] = sys.executable
os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
from pyspark.sql import SparkSession
from sparktasks import DocumentAssembler, TextClassifier
spark = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
spark.sparkContext.setLogLevel("ERROR")
df = spark.range(1000).selectExpr("concat('book a table for ', id) as text").coalesce(1)
frame = TextClassifier.pretrained().transform(DocumentAssembler().transform(df))
times = []
for _ in range(7):
    begun = time.perf_counter()
    assert len(frame.head(3)) == 3
    times.append(time.perf_counter() - begun)
print(json.dumps(times[2:]))  # the first ones start the JVM's side
"""


def run(checkout: Path, code: str, *values: str) -> str:
    """Run code with the sparktasks of a checkout; returns the last line it prints."""
    environment = os.environ | {"PYTHONPATH": str(checkout), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-c", code, *values],
        capture_output=True,
        text=True,
        env=environment,
        cwd=checkout,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return done.stdout.strip().splitlines()[-1]


def main() -> int:
    """Print the seconds of both, and their ratio to the base's."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--base", type=Path, help="another checkout of sparktasks")
    options = parser.parse_args()
    checkouts = [ROOT] if options.base is None else [ROOT, options.base.resolve()]
    kernels = {checkout: run(checkout, KERNEL) for checkout in checkouts}
    loads: dict[Path, list[float]] = {checkout: [] for checkout in checkouts}
    heads: dict[Path, list[float]] = {checkout: [] for checkout in checkouts}
    for _ in range(options.rounds):
        for checkout in checkouts:
            loads[checkout].append(float(run(checkout, LOAD, kernels[checkout])))
            heads[checkout].append(Spread.of(json.loads(run(checkout, HEAD))).median)
    print(machine())
    print(f"seconds, median (lowest-highest) of {options.rounds} interleaved rounds")
    for name, values in (("loading the kernel", loads), ("head(3)", heads)):
        line = f"{name:20} {Spread.of(values[ROOT])}"
        if len(checkouts) > 1:
            base = checkouts[1]
            line += f"   base {Spread.of(values[base])}   ratio {ratios(values[ROOT], values[base])}"
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
