"""Running a job: read, annotate, write, count."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from sparktasks.jobs.progress import progress, say
from sparktasks.jobs.report import Counts, Summary, counts, described
from sparktasks.jobs.resume import plan_parts
from sparktasks.jobs.spec import Job
from sparktasks.jobs.stages import Annotated, annotated, build_stages, models_of
from sparktasks.jobs.storage import read, write


def run_job(job: Job, spark: SparkSession) -> Summary:
    """Run a job in a session, whose settings stay as they are, and return its numbers."""
    started = time.monotonic()
    stages = build_stages(job)
    source = read(spark, job.read)
    whole = annotated(source, stages, job.write.columns)  # finds wrong columns before anything runs
    already, strays = None, 0
    if job.resume:
        plan = plan_parts(job, source, whole.frame.schema)
        already, strays = plan.already, plan.strays
        say(f"{job.name}: {plan.already:,} rows are there already, {plan.todo:,} to do in {len(plan.parts)} parts")
        found = _write_parts(job, plan.parts, stages)
    else:
        found = _write(job, whole, job.write.mode or "error", job.name)
    seconds = time.monotonic() - started
    models = described(spark, models_of(job, stages), ran=found.rows != 0)
    return Summary(job.name, _place(job, found), found, seconds, models, already, strays)


def _write_parts(job: Job, parts: Sequence[DataFrame], stages: Sequence[Any]) -> Counts:
    total = Counts(0, 0)
    for number, part in enumerate(parts, start=1):
        label = f"{job.name}: part {number} of {len(parts)}"
        try:
            total += _write(job, annotated(part, stages, job.write.columns), "append", label)
        except Exception:
            say(f"{label} failed; {number - 1} parts are written, and running the job again goes on from there")
            raise
        say(f"{label} is written")
    return total


def _write(job: Job, made: Annotated, mode: str, label: str) -> Counts:
    with progress(made.frame.sparkSession, label):
        write(made.frame, job.write, mode)
    return counts(made)


def _place(job: Job, found: Counts) -> str:
    section = job.write
    place = section.table or section.path or ""
    named = f"{place} ({section.format})" if place and section.format else place or str(section.format)
    return f"{named}, or nothing where that was there already (mode: ignore)" if section.mode == "ignore" and not found.rows else named
