"""What the benchmarks share: the command line, the Spark session, interleaved rounds, medians, facts about the
machine."""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
PACKAGES = (
    "pyspark",
    "onnxruntime",
    "tokenizers",
    "transformers",
    "torch",
    "ctranslate2",
    "onnxruntime-genai",
    "pyarrow",
    "numpy",
)

sys.path.insert(0, str(ROOT))


def arguments(description: str) -> argparse.ArgumentParser:
    """Return a parser with the options of every benchmark that runs the MiniLM-sized model."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=SHARED / "data", help="folder with the text corpora (default: %(default)s)"
    )
    parser.add_argument(
        "--model", type=Path, default=ROOT / "build" / "bench" / "minilm", help="folder of the model, built if absent"
    )
    parser.add_argument(
        "--tokenizer",
        type=Path,
        default=SHARED / "models" / "tokenizers" / "bert-base-uncased.json.gz",
        help="bert-base-uncased's tokenizer.json, gzipped; read when the model is built",
    )
    return parser


def spark_session(cores: int, settings: Mapping[str, str] | None = None) -> Any:
    """Start a local session whose Python workers find sparktasks and these scripts."""
    from pyspark.sql import SparkSession

    here = [str(ROOT), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, here))
    os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    fixed = {
        "spark.ui.enabled": "false",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.memory": "2g",
        "spark.log.level": "ERROR",
        "spark.ui.showConsoleProgress": "false",
    }
    builder = SparkSession.builder.master(f"local[{cores}]").appName("bench")
    for key, value in {**fixed, **(settings or {})}.items():
        builder = builder.config(key, value)
    return builder.getOrCreate()


@dataclass(frozen=True)
class Spread:
    """A median and how far the measurements lie around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarise measurements."""
        return cls(statistics.median(values), min(values), max(values))

    def __str__(self) -> str:
        digits = 0 if self.median >= 1000 else 1 if self.median >= 10 else 2
        return f"{self.median:,.{digits}f} ({self.low:,.{digits}f}-{self.high:,.{digits}f})"


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> Spread:
    """Summarise the ratios of the rounds, each taken within its round."""
    return Spread.of([upper / lower for upper, lower in zip(numerators, denominators, strict=True)])


def seconds(work: Callable[[], object]) -> float:
    """Time one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def machine() -> dict[str, str]:
    """Say what ran: processor, cores this process may use, versions of what is installed."""
    versions = [f"Python {platform.python_version()}", *filter(None, map(_version, PACKAGES))]
    return {"processor": f"{_processor()}, {len(os.sched_getaffinity(0))} cores", "versions": ", ".join(versions)}


def _version(package: str) -> str | None:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return None


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def generation_arguments(description: str | None, page: str, texts: int = 64) -> argparse.ArgumentParser:
    """Return a parser with the options of every benchmark of generators, which writes ``docs/bench/PAGE.md``."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--models",
        type=Path,
        default=ROOT / "build" / "bench",
        help="folder of the models, built if absent (default: %(default)s)",
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--texts", type=int, default=texts)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "bench" / f"{page}.md")
    return parser


def write_generation_page(options: argparse.Namespace, title: str, parts: Sequence[str]) -> None:
    """Print a page of results and write it where the options say: a title, the command, facts, and what was found."""
    facts = {
        "threads": options.threads,
        "rounds": f"{options.rounds}, interleaved; median (lowest-highest)",
        **machine(),
    }
    known = "\n".join(f"- {key}: {value}" for key, value in facts.items())
    command = " ".join([f"scripts/bench/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    text = f"# {title}\n\nMade by `{command}`.\n\n{known}\n" + "".join(parts)
    print(text)
    options.out.write_text(text, encoding="utf-8")
