"""Text classification with a MiniLM-sized model: sparktasks on Spark against raw onnxruntime and against other ways on
Spark.

    python scripts/bench/text.py                                            # the whole comparison, into docs/bench
    python scripts/bench/text.py --rounds 1 --texts 200 --peers sparktasks  # a quick look

All contenders get the same texts and the same weights; those on Spark read the same cached frame. In each round every
contender first does a small job, untimed, that opens its model where it is not open, and then the whole job, timed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import ROOT, arguments, machine, seconds, spark_session
from corpus import mixed_texts
from encoder import models
from peers import Frames, Job, Peer, RawProcesses, RawThreads, batch_udf_peer, sparktasks_peer, transformers_peer
from report import Result, write

MAKERS: dict[str, Callable[[str, Job, Frames], Peer]] = {
    "sparktasks": sparktasks_peer,
    "predict_batch_udf": partial(batch_udf_peer, batch_size=32, threads=1),
    "predict_batch_udf-threads": partial(batch_udf_peer, batch_size=32, threads=None),
    "predict_batch_udf-rows": partial(batch_udf_peer, batch_size=1, threads=1),
    "transformers": partial(transformers_peer, batch_size=32),
    "transformers-rows": partial(
        transformers_peer, batch_size=1
    ),  # its default, and what its documentation advises on a CPU
}
TOLERANCE = 1e-4


def frames_of(spark: Any, texts: list[str], partitions: int) -> Frames:
    """Return the cached frame of all texts, and a small one for warming up."""

    def cached(part: list[str]) -> Any:
        frame = spark.createDataFrame(list(enumerate(part)), "id long, text string").repartition(partitions).cache()
        frame.count()
        return frame

    return cached(texts), cached(texts[: 8 * partitions])


def check(peers: list[Peer]) -> float:
    """Compare all answers with the first contender's; return the largest difference of a score, raise above 1e-4."""
    labels, scores = peers[0].answers()
    worst = 0.0
    for peer in peers[1:]:
        found, values = peer.answers()
        worst = max(worst, float(np.abs(np.subtract(scores, values)).max()))
        wrong = [place for place, (left, right) in enumerate(zip(labels, found, strict=True)) if left != right]
        if wrong or worst > TOLERANCE:
            raise SystemExit(
                f"{peer.name} and {peers[0].name}: {len(wrong)} other labels, scores differ by up to {worst:.1e}"
            )
    print(
        f"{len(peers)} contenders agree: {len(labels)} labels of {len(set(labels))} kinds, scores within {worst:.1e}",
        flush=True,
    )
    return worst


def measure(peers: list[Peer], rounds: int, count: int) -> dict[str, Result]:
    """Run the contenders in turn, round by round."""
    results = {peer.name: Result(peer.setting, []) for peer in peers}
    for number in range(rounds):
        for peer in peers:
            peer.warm()
            rate = count / seconds(peer.run)
            results[peer.name].rates.append(rate)
            print(f"round {number + 1}: {peer.name} {rate:.1f} rows/s", flush=True)
    return results


def facts_of(options: argparse.Namespace, job: Job, worst: float) -> dict[str, str]:
    """Say what was measured, for the report's header."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(job.models.classifier / "tokenizer.json"))
    tokenizer.no_truncation()
    characters = [len(text) for text in job.texts]
    tokens = [len(encoding) for encoding in tokenizer.encode_batch(job.texts)]
    quartiles = [
        " / ".join(f"{value:.0f}" for value in np.percentile(values, (25, 50, 75))) for values in (characters, tokens)
    ]
    return {
        "model": "BERT, 6 layers x 384, 12 heads, vocabulary 30,522 (MiniLM's shape), random weights, fp32, 6 labels",
        "texts": (
            f"{len(job.texts):,} of {min(characters)} to {max(characters):,} characters; quartiles "
            f"{quartiles[0]}, in tokens {quartiles[1]}"
        ),
        "max_length": f"{job.max_length} tokens; {sum(length > job.max_length for length in tokens)} texts are cut",
        "spark": (
            f"local[{job.cores}], {options.partitions} partitions, written to the noop format; every worker runs "
            "one task on 1 thread"
        ),
        "rounds": f"{options.rounds}, interleaved; median (lowest-highest)",
        "agreement": f"same labels, scores within {worst:.1e}",
        **machine(),
    }


def main() -> None:
    """Run the command line."""
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--texts", type=int, default=3000)
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument(
        "--peers", nargs="*", choices=MAKERS, default=list(MAKERS), help="beside the raw ones, which always run"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=ROOT / "docs" / "bench",
        help="folder for text.md, text.json and text.png (default: %(default)s)",
    )
    options = parser.parse_args()
    texts = mixed_texts(options.data, options.texts)
    job = Job(models(options.model, options.tokenizer), texts, options.max_length, options.cores)
    spark = spark_session(options.cores)
    frames = frames_of(spark, texts, options.partitions)
    threads, processes = RawThreads(job), RawProcesses(job)
    peers = [threads, processes, *(MAKERS[name](name, job, frames) for name in options.peers)]
    facts = facts_of(options, job, check(peers))
    write(options.out, facts, measure(peers, options.rounds, len(texts)), limits=(threads.name, processes.name))
    processes.close()
    spark.stop()


if __name__ == "__main__":
    main()
