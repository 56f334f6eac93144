"""What a job says at its end."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from sparktasks.jobs.stages import Annotated, Model
from sparktasks.kernels.parcels import BundleRef, Parcel, locate
from sparktasks.spark.delivery import deliver
from sparktasks.spark.task import prepare_worker

# Spark posts the counts right after the write; a write that did nothing (mode: ignore) never posts any.
_COUNTS_SECONDS = 10.0


@dataclass(frozen=True)
class Counts:
    """Rows written and rows with errors; None stands for an unknown number."""

    rows: int | None
    faults: int | None

    def __add__(self, other: Counts) -> Counts:
        rows = _sum(self.rows, other.rows)
        faults = _sum(self.faults, other.faults)
        return Counts(rows, faults)


def _sum(left: int | None, right: int | None) -> int | None:
    if left is None or right is None:
        return None
    return left + right


def _number(count: int | None) -> str:
    return "unknown" if count is None else f"{count:,}"


@dataclass(frozen=True)
class Summary:
    """A finished job in numbers; None stands for an unknown number.

    ``already`` is the number of rows that an earlier run wrote, ``errors`` that of rows with errors in the whole
    output; only resumed jobs have them.
    """

    name: str
    output: str
    counts: Counts
    seconds: float = 0.0
    models: tuple[str, ...] = ()
    already: int | None = None
    strays: int = 0
    errors: int | None = None
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Write the summary for a reader."""
        rows = _number(self.counts.rows)
        speed = "unknown"
        if self.counts.rows is not None:
            seconds = max(self.seconds, 1e-9)
            speed = f"{self.counts.rows / seconds:,.1f}"
        if self.already is not None:
            rows = f"{rows} ({self.already:,} more were there already)"
        pairs = [
            ("rows", rows),
            ("rows with errors", self._faults()),
            ("seconds", f"{self.seconds:.1f}"),
            ("rows/s", speed),
            *(("model", model) for model in self.models),
            ("written to", self.output),
            *(("note", note) for note in self.notes),
        ]
        return [f"{self.name}: done", *(f"  {name:<18}{value}" for name, value in pairs)]

    def _faults(self) -> str:
        """Write the errors of this run and, where the output holds rows of earlier runs, of all together."""
        written = _number(self.counts.faults)
        if not self.already:
            return written
        if self.errors is None:
            return f"{written} (the rows that were there already do not show theirs)"
        hint = "; `retry: errors` annotates them again" if self.errors else ""
        return f"{written} ({self.errors:,} in the whole output{hint})"


def counts(annotated: Annotated) -> Counts:
    """Return what was counted while a frame was written."""
    observed: dict[str, int] = {}

    def wait() -> None:
        observed.update(annotated.observation.get)

    # In a thread, since `get` has no time limit.
    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    waiting.join(_COUNTS_SECONDS)
    if not observed:
        return Counts(None, None)
    faults = observed["faults"] if annotated.knows_faults else None
    return Counts(observed["rows"], faults)


def describe_models(spark: SparkSession, models: Sequence[Model], ran: bool) -> tuple[str, ...]:
    """Say of each model its name, who used it, its content hash, and the provider that ran it."""
    providers = ["was not needed"] * len(models)
    if ran and models:
        providers = _providers(spark, models)
    lines = []
    for model, provider in zip(models, providers, strict=True):
        short_hash = model.bundle.hash[:12]
        lines.append(f"{model.name} ({model.annotator}, sha256 {short_hash}) {provider}")
    return tuple(lines)


def _providers(spark: SparkSession, models: Sequence[Model]) -> list[str]:
    """Ask an executor which onnxruntime provider runs each model; right after a job its sessions are still open."""
    bundles = [model.bundle for model in models]
    questions = [(BundleRef.of(model.bundle), model.device) for model in models]
    try:
        parcels = deliver(bundles, spark)
        ask = F.udf(lambda: _providers_here(questions, parcels), "array<string>")
        answer = spark.range(1).select(ask()).collect()
    except Exception as error:  # the output is written; a question about it must not make the job a failure
        return [f"on an unknown provider ({type(error).__name__})"] * len(models)
    return [f"on {provider}" for provider in answer[0][0]]


def _providers_here(questions: Sequence[tuple[BundleRef, str]], parcels: Sequence[Parcel]) -> list[str]:
    # Only an executor needs onnxruntime.
    from sparktasks.runtime.session import open_session

    prepare_worker([(parcel.hash, parcel.way, parcel.files, parcel.parts) for parcel in parcels])
    return [open_session(locate(ref), device).provider for ref, device in questions]
