"""Memory and opening time of a model in 1 to 8 worker processes: opened from bytes, from its path, and by sparktasks.

    python scripts/bench/memory.py                 # the whole comparison, into docs/bench
    python scripts/bench/memory.py --workers 4     # one number of workers

Every worker opens the model and runs it once; then the proportional set sizes (PSS: shared pages counted once, divided
among those who share them) of all workers are added up, and those of as many bare workers, with everything imported and
no model, are subtracted. Linux only.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from common import ROOT, Spread, arguments, machine
from encoder import BASE, models

WAYS = ("bare", "bytes", "path", "sparktasks")
ROUNDS = 5


@dataclass(frozen=True)
class Crew:
    """What some workers took: the slowest one's opening in seconds, and their PSS together in MB."""

    seconds: float
    megabytes: float


def work(way: str, folder: Path) -> None:
    """Be a worker: open the model, run it, and say how long the opening took; wait; say the PSS."""
    import onnxruntime

    from sparktasks.runtime import session, threads
    from sparktasks.runtime.bundle import open_bundle

    threads.use(1)
    bundle, opened = open_bundle(folder), None
    bundle.__dict__["hash"] = os.environ["BUNDLE_HASH"]  # Spark's workers get it from the driver
    started = time.perf_counter()
    if way == "sparktasks":
        opened = session.open_session(bundle)._session
    elif way != "bare":
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        source = bundle.model_path.read_bytes() if way == "bytes" else str(bundle.model_path)
        opened = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        del source
    print(time.perf_counter() - started, flush=True)
    if opened is not None:
        opened.run(None, {port.name: np.ones((4, 64), np.int64) for port in opened.get_inputs()})
    sys.stdin.readline()
    rollup = Path("/proc/self/smaps_rollup").read_text(encoding="utf-8").splitlines()
    print(next(int(line.split()[1]) for line in rollup if line.startswith("Pss:")) / 1024, flush=True)
    sys.stdin.readline()


def crew(way: str, folder: Path, count: int, environment: dict[str, str]) -> Crew:
    """Run so many workers at once."""
    command = [sys.executable, __file__, "--work", way, "--model", str(folder)]
    workers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(count)
    ]
    seconds = [float(_line(worker)) for worker in workers]
    for worker in workers:
        _go_on(worker)
    sizes = [float(_line(worker)) for worker in workers]
    for worker in workers:
        _go_on(worker)
        worker.wait()
    return Crew(max(seconds), sum(sizes))


def _line(worker: subprocess.Popen[str]) -> str:
    assert worker.stdout is not None
    return worker.stdout.readline()


def _go_on(worker: subprocess.Popen[str]) -> None:
    assert worker.stdin is not None
    worker.stdin.write("\n")
    worker.stdin.flush()


def table(folder: Path, counts: list[int], environment: dict[str, str], weights: float) -> list[str]:
    """Measure, and return the lines of a Markdown table."""
    lines = [
        "| workers | opened from | PSS, MB | without bare workers, MB | copies of the weights | slowest opening, s |",
        "|---|---|---|---|---|---|",
    ]
    for count in counts:
        rounds = [{way: crew(way, folder, count, environment) for way in WAYS} for _ in range(ROUNDS)]
        for way in WAYS[1:]:
            total = Spread.of([each[way].megabytes for each in rounds])
            own = Spread.of([each[way].megabytes - each["bare"].megabytes for each in rounds])
            opening = Spread.of([each[way].seconds for each in rounds])
            lines.append(f"| {count} | {way} | {total} | {own} | {own.median / weights:.2f} | {opening} |")
            print(lines[-1], flush=True)
    return lines


def main() -> None:
    """Run the command line."""
    parser = arguments(__doc__)
    parser.set_defaults(model=ROOT / "build" / "bench" / "bert-base")
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2, 4, 8])
    parser.add_argument(
        "--out", type=Path, default=ROOT / "docs" / "bench", help="folder for memory.md (default: %(default)s)"
    )
    parser.add_argument("--work", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work, options.model)
        return
    from sparktasks.runtime.bundle import open_bundle

    bundle = open_bundle(models(options.model, options.tokenizer, BASE).encoder)
    weights = bundle.weight_bytes / 2**20
    with tempfile.TemporaryDirectory() as root:
        environment = os.environ | {"SPARKTASKS_CACHE": root, "BUNDLE_HASH": bundle.hash, "PYTHONPATH": str(ROOT)}
        making = crew("sparktasks", bundle.folder, 1, environment)
        lines = table(bundle.folder, options.workers, environment, weights)
    facts = {
        "model": f"BERT of base size (12 layers x 768), random weights, fp32, {weights:,.0f} MB",
        "sparktasks": (
            f"packed once per machine, {making.seconds:.1f} s, by the first process that asked; the figures "
            "are those of later ones"
        ),
        "rounds": f"{ROUNDS}, interleaved; median (lowest-highest)",
        **machine(),
    }
    text = "\n".join(
        [
            "# Memory: one model in several workers",
            "",
            *(f"- {name}: {value}" for name, value in facts.items()),
            "",
            *lines,
            "",
        ]
    )
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "memory.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
