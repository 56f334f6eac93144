"""Running a job: read, annotate, write, count."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from sparktasks.errors import OutputError
from sparktasks.jobs.apart import check_apart, output_location
from sparktasks.jobs.files import Place, place_of
from sparktasks.jobs.lock import NoLock, OutputLock, locked
from sparktasks.jobs.output import Output, Review
from sparktasks.jobs.progress import progress, say
from sparktasks.jobs.record import check_record, keep_record, record_of
from sparktasks.jobs.report import Counts, Summary, counts, described
from sparktasks.jobs.resume import Plan, check_id, plan_parts
from sparktasks.jobs.retry import finish_retry, take_out_errors
from sparktasks.jobs.spec import Job
from sparktasks.jobs.stages import Annotated, annotated, build_stages, models_of
from sparktasks.jobs.storage import read, write

# Formats that count their rows without reading them.
_COUNTED = ("parquet", "orc")


def run_job(job: Job, spark: SparkSession) -> Summary:
    """Run a job in a session, whose settings stay as they are, and return its numbers.

    Raises `JobError` where another run is writing to the output, and `OutputError` where rows are missing in the end.
    """
    started = time.monotonic()
    stages = build_stages(job)
    models = models_of(job, stages)
    source = read(spark, job.read)
    whole = annotated(source, stages, job.write.columns)  # finds wrong columns before anything runs
    if job.resume:
        check_id(job, source, whole.frame.schema)
    check_apart(job, spark, source, models)
    location = output_location(job, spark)
    place = place_of(spark, location) if location else None
    with locked(place, location or job.write.table, job.name, spark) as lock:
        if job.resume:
            output = Output(job, spark, whole.frame.schema, place)
            summary = _resumed(job, source, stages, output, lock)
        else:
            summary = _written_at_once(job, whole, place, lock)
    seconds = time.monotonic() - started
    notes = tuple(note for note in (*summary.notes, lock.note) if note)
    ran = described(spark, models, ran=summary.counts.rows != 0)
    return replace(summary, seconds=seconds, models=ran, notes=notes)


def _written_at_once(job: Job, whole: Annotated, place: Place | None, lock: OutputLock | NoLock) -> Summary:
    spark, mode = whole.frame.sparkSession, job.write.mode or "error"
    before: int | None = 0
    if mode == "append":
        _drop_leftovers(job, place)
        before = _count(job, spark, place)
    try:
        found = _write(job, whole, mode, job.name)
    except (KeyboardInterrupt, SystemExit):
        say(f"{job.name}: stopped before its rows were committed; none of them are in the output")
        raise
    lock.check()
    there = _count(job, spark, place)
    is_known = before is not None and there is not None and found.rows is not None
    if is_known and mode != "ignore":
        _check_number(job, (there or 0) - (before or 0), found.rows or 0)
    return Summary(job.name, _place(job, found), found)


def _drop_leftovers(job: Job, place: Place | None) -> None:
    """Remove what a killed run had finished but not committed; this run's commit would add it to all that it writes."""
    if place is not None and place.files.exists(place.inside("_temporary")):
        say(f"{job.name}: removed what a run that was killed had left in {place.inside('_temporary')}")
        place.files.remove_folder(place.inside("_temporary"))


def _count(job: Job, spark: SparkSession, place: Place | None) -> int | None:
    """Return the number of rows in the output; None where counting them would mean reading them."""
    if place is None or job.write.table or job.write.format not in _COUNTED:
        return None
    if not place.files.has_data(place.path):
        return 0
    return spark.read.options(**job.write.options).format(job.write.format).load(job.write.path).count()


def _check_number(job: Job, there: int, expected: int) -> None:
    if there < expected:
        raise OutputError(
            f"{job.name}: {expected:,} rows were written, but {there:,} are in {job.write.path or job.write.table}. "
            "Did something else write there, or delete files, at the same time?"
        )


def _resumed(job: Job, source: DataFrame, stages: Sequence[Any], output: Output, lock: OutputLock | NoLock) -> Summary:
    note = _prepared(job, stages, source.columns, output)
    plan = plan_parts(job, source, output)
    say(f"{job.name}: {plan.already:,} rows are there already, {plan.todo:,} to do in {len(plan.parts)} parts")
    found = _write_parts(job, plan, stages, lock)
    if not output.exists():  # nothing was to do, and readers want columns all the same
        output.settle()
    lock.check()
    review = output.review(source.columns)
    _check_number(job, review.ids, plan.already + plan.strays + plan.todo)
    notes = [note, *_notes(plan, review)]
    return Summary(
        job.name,
        _place(job, found),
        found,
        already=plan.already,
        strays=plan.strays,
        errors=review.errors,
        notes=tuple(notes),
    )


def _prepared(job: Job, stages: Sequence[Any], columns: list[str], output: Output) -> str:
    """Bring the output into a state that rows can be added to; `JobError` where it is not this job's."""
    record = record_of(job, stages, output.schema)
    if output.place is not None:
        finish_retry(output.place)
    if job.resume == "redo":
        output.clear()
    else:
        check_record(output, record)
    if job.write.table and not output.exists():
        output.settle()
    note = keep_record(output, record)
    if job.retry and output.exists():
        taken = take_out_errors(output, columns)
        say(f"{job.name}: {taken:,} rows with errors are annotated again")
    return note


def _notes(plan: Plan, review: Review) -> list[str]:
    notes = []
    if plan.strays:
        notes.append(f"the output also holds {plan.strays:,} ids that the input does not have")
    if review.rows > review.ids:
        notes.append(
            f"the output holds {review.rows - review.ids:,} rows too many: ids that are there more than once, or null"
        )
    return notes


def _write_parts(job: Job, plan: Plan, stages: Sequence[Any], lock: OutputLock | NoLock) -> Counts:
    total = Counts(0, 0)
    for number, part in enumerate(plan.parts, start=1):
        label = f"{job.name}: part {number} of {len(plan.parts)}"
        try:
            lock.check()
            total += _write(job, annotated(part, stages, job.write.columns), "append", label)
        except BaseException as error:
            how = "failed" if isinstance(error, Exception) else "was stopped"
            again = "with `resume: true` " if job.resume == "redo" else ""
            say(f"{label} {how}; {number - 1} parts are written, and running the job again {again}goes on from there")
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
    return (
        f"{named}, or nothing where that was there already (mode: ignore)"
        if section.mode == "ignore" and not found.rows
        else named
    )
