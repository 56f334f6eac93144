"""What a job says at its end."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from sparktasks.jobs.stages import Annotated, Model
from sparktasks.spark.delivery import BundleRef, Parcel, deliver, locate
from sparktasks.spark.vectorized import prepare_worker

# Spark posts the counts right after the write; a write that did nothing (mode: ignore) never posts any.
_COUNTS_SECONDS = 10.0


@dataclass(frozen=True)
class Counts:
    """Rows written and rows with errors; None stands for what could not be learnt."""

    rows: int | None
    faults: int | None

    def __add__(self, other: Counts) -> Counts:
        return Counts(_sum(self.rows, other.rows), _sum(self.faults, other.faults))


def _number(count: int | None) -> str:
    return "unknown" if count is None else f"{count:,}"


def _sum(left: int | None, right: int | None) -> int | None:
    return None if left is None or right is None else left + right


@dataclass(frozen=True)
class Summary:
    """A finished job in numbers; None stands for what could not be learnt.

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
        rows = self.counts.rows
        pairs = [
            ("rows", self._rows()),
            ("rows with errors", self._faults()),
            ("seconds", f"{self.seconds:.1f}"),
            ("rows/s", "unknown" if rows is None else f"{rows / max(self.seconds, 1e-9):,.1f}"),
            *(("model", model) for model in self.models),
            ("written to", self.output),
            *(("note", note) for note in self.notes),
        ]
        return [f"{self.name}: done", *(f"  {name:<18}{value}" for name, value in pairs)]

    def _rows(self) -> str:
        written = _number(self.counts.rows)
        return written if self.already is None else f"{written} ({self.already:,} more were there already)"

    def _faults(self) -> str:
        """Write the errors of this run and, where the output holds rows of earlier runs, of all together."""
        here = _number(self.counts.faults)
        if not self.already:
            return here
        if self.errors is None:
            return f"{here} (the rows that were there already do not show theirs)"
        hint = "; `retry: errors` annotates them again" if self.errors else ""
        return f"{here} ({self.errors:,} in the whole output{hint})"


def counts(made: Annotated) -> Counts:
    """Return what was counted while a frame was written."""
    found: list[dict[str, int]] = []
    waiting = threading.Thread(target=lambda: found.append(dict(made.observation.get)), daemon=True)
    waiting.start()
    waiting.join(_COUNTS_SECONDS)
    if not found or not found[0]:
        return Counts(None, None)
    return Counts(found[0]["rows"], found[0]["faults"] if made.knows_faults else None)


def described(spark: SparkSession, models: Sequence[Model], ran: bool) -> tuple[str, ...]:
    """Say of each model its name, who used it, its content hash, and the provider that ran it."""
    pairs = zip(models, _providers(spark, models, ran), strict=True)
    return tuple(
        f"{model.name} ({model.annotator}, sha256 {model.bundle.hash[:12]}) {provider}" for model, provider in pairs
    )


def _providers(spark: SparkSession, models: Sequence[Model], ran: bool) -> list[str]:
    if not ran:
        return ["was not needed"] * len(models)
    try:
        return [f"on {provider}" for provider in providers_used(spark, models)]
    except Exception as error:  # the output is written; a question about it must not make the job a failure
        return [f"on an unknown provider ({type(error).__name__})"] * len(models)


def providers_used(spark: SparkSession, models: Sequence[Model]) -> list[str]:
    """Ask an executor which onnxruntime provider it runs each model on; right after a job its sessions are open
    still."""
    asked = [(BundleRef.of(model.bundle), model.device) for model in models]
    if not asked:
        return []
    parcels = deliver([model.bundle for model in models], spark)
    ask = F.udf(lambda: _providers_here(asked, parcels), "array<string>")
    return list(spark.range(1).select(ask()).collect()[0][0])


def _providers_here(asked: Sequence[tuple[BundleRef, str]], parcels: Sequence[Parcel]) -> list[str]:
    from sparktasks.runtime.session import open_session

    prepare_worker(parcels)
    return [open_session(locate(ref), device).provider for ref, device in asked]
