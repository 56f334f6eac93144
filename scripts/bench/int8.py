"""An int8 bundle against the fp32 one it was made from, end to end on Spark: rows a second, and how far their vectors agree.

python scripts/bench/int8.py     # into docs/bench
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import ROOT, Spread, arguments, machine, ratios, seconds, spark_session
from corpus import mixed_texts
from encoder import models
from text import frames_of

ROUNDS = 5


def vectors(model: Any, frame: Any) -> np.ndarray:
    """Return the texts' vectors in the order of their ids."""
    rows = sorted(model.transform(frame).select("id", "embeddings.embeddings").collect())
    return np.array([row[1][0] for row in rows])


def main() -> None:
    """Run the command line."""
    parser = arguments(__doc__)
    parser.add_argument("--texts", type=int, default=1500)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "bench", help="folder for int8.md (default: %(default)s)")
    options = parser.parse_args()
    from pyspark.ml import PipelineModel

    from sparktasks import DocumentAssembler, TextEmbedder
    from sparktasks.runtime.bundle import open_bundle
    from sparktasks.runtime.quantize import quantize

    spark = spark_session(options.cores)
    full, small = frames_of(spark, mixed_texts(options.data, options.texts), 2 * options.cores)
    original = open_bundle(models(options.model, options.tokenizer).encoder)
    with tempfile.TemporaryDirectory() as scratch:
        made = quantize(original, Path(scratch) / "int8")
        sizes = [each.weight_bytes / 1e6 for each in (original, made)]
        sources = {"fp32": original.folder, "int8": made.folder}
        stages = {name: PipelineModel([DocumentAssembler(), TextEmbedder.pretrained(folder, maxLength=256)]) for name, folder in sources.items()}
        left, right = (vectors(stage, full) for stage in stages.values())
        rates: dict[str, list[float]] = {name: [] for name in stages}
        for _ in range(ROUNDS):
            for name, stage in stages.items():
                stage.transform(small).write.format("noop").mode("overwrite").save()
                job = stage.transform(full).write.format("noop").mode("overwrite")
                rates[name].append(options.texts / seconds(job.save))
    cosines = (left * right).sum(axis=1) / (np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1))
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    facts = {
        "model": "encoder of text.md (BERT, 6 layers x 384, random weights), mean pooling, max_length 256",
        "texts": f"{options.texts:,}, as in text.md; local[{options.cores}], {2 * options.cores} partitions, written to the noop format",
        "rounds": f"{ROUNDS}, interleaved; median (lowest-highest)",
        "VNNI": "yes" if "vnni" in flags else "no",
        **machine(),
        "cosine of the vectors": f"{cosines.mean():.4f} mean, {cosines.min():.4f} lowest",
        "weights": f"{sizes[0]:.1f} MB in fp32, {sizes[1]:.1f} MB in int8",
    }
    header = "\n".join(f"- {name}: {value}" for name, value in facts.items())
    rows = "\n".join(f"| {name} | {Spread.of(each)} | {ratios(each, rates['fp32'])} |" for name, each in rates.items())
    text = f"# int8 against fp32\n\n{header}\n\n| precision | rows/s | against fp32 |\n|---|---|---|\n{rows}\n"
    (options.out / "int8.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
