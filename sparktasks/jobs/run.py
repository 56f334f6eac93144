"""Running a job: read, annotate, write, count."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from sparktasks.errors import OutputError
from sparktasks.jobs.apart import check_apart, output_location
from sparktasks.jobs.files import place_of
from sparktasks.jobs.interrupt import interruptible
from sparktasks.jobs.lock import NoLock, OutputLock, locked
from sparktasks.jobs.output import LEFTOVERS, Output, Review
from sparktasks.jobs.progress import progress, say
from sparktasks.jobs.record import check_record, keep_record, record_of
from sparktasks.jobs.report import Counts, Summary, counts, describe_models
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
    rows = annotated(source, stages, job.write.columns)  # finds wrong columns before anything runs
    if job.resume:
        check_id(job, source, rows.frame.schema)
    check_apart(job, spark, source, models)
    location = output_location(job, spark)
    place = place_of(spark, location) if location else None
    output = Output(job, spark, rows.frame.schema, place)
    with locked(place, job.write.place, job.name, spark) as lock:
        summary = _write_missing(source, stages, output, lock) if job.resume else _write_at_once(rows, output, lock)
    notes = [*summary.notes, lock.note]
    return replace(
        summary,
        seconds=time.monotonic() - started,
        models=describe_models(spark, models, ran=summary.counts.rows != 0),
        notes=tuple(filter(None, notes)),
    )


def _write_at_once(rows: Annotated, output: Output, lock: OutputLock | NoLock) -> Summary:
    """Write all rows in one commit, and compare what is there then with what was counted."""
    job = output.job
    mode = job.write.mode or "error"
    before: int | None = 0
    if mode == "append":
        _drop_leftovers(output)
        before = _count(output)
    try:
        written = _write(job, rows, mode, job.name)
    except (KeyboardInterrupt, SystemExit):
        say(f"{job.name}: stopped before its rows were committed; none of them are in the output")
        raise
    lock.check()
    after = _count(output)
    name = _named_output(job)
    if mode == "ignore":
        # Whether anything was written, Spark tells in its newer versions only.
        name += "" if written.rows else ", or nothing where that was there already (mode: ignore)"
    elif None not in (before, after, written.rows):
        _check_number(job, there=after - before, expected=written.rows)  # type: ignore[operator, arg-type]
    return Summary(job.name, name, written)


def _drop_leftovers(output: Output) -> None:
    """Remove what a killed run had finished but not committed; this run's commit would add it to all that it writes."""
    place = output.place
    if place is None or not output.has_leftovers():
        return
    leftovers = place.inside(LEFTOVERS)
    say(f"{output.job.name}: removed what a run that was killed had left in {leftovers}")
    place.files.remove_folder(leftovers)


def _count(output: Output) -> int | None:
    """Return the number of rows in the output; None where counting them would mean reading them."""
    if output.place is None or output.file_format not in _COUNTED:
        return None
    if not output.exists():
        return 0
    return output.rows().count()


def _check_number(job: Job, there: int, expected: int) -> None:
    if there < expected:
        raise OutputError(
            f"{job.name}: {expected:,} rows were written, but {there:,} are in {job.write.place}. "
            "Did something else write there, or delete files, at the same time?"
        )


def _write_missing(
    source: DataFrame,
    stages: Sequence[Any],
    output: Output,
    lock: OutputLock | NoLock,
) -> Summary:
    """Write the rows that the output lacks, part by part, and count what is there in the end."""
    job = output.job
    note = _prepare(stages, source.columns, output)
    plan = plan_parts(job, source, output)
    say(f"{job.name}: {plan.already:,} rows are there already, {plan.todo:,} to do in {len(plan.parts)} parts")
    written = _write_parts(job, plan, stages, lock)
    if not output.exists():  # nothing was to do, and readers want columns all the same
        output.settle()
    lock.check()
    review = output.review(source.columns)
    expected = plan.already + plan.strays + plan.todo
    _check_number(job, there=review.ids, expected=expected)
    return Summary(
        name=job.name,
        output=_named_output(job),
        counts=written,
        already=plan.already,
        strays=plan.strays,
        errors=review.errors,
        notes=(note, *_notes(plan, review)),
    )


def _prepare(stages: Sequence[Any], input_columns: list[str], output: Output) -> str:
    """Bring the output into a state that rows can be added to; `JobError` where it is not this job's.

    Return a note where the record of what made the rows cannot be kept.
    """
    job = output.job
    record = record_of(job, stages, output.schema)
    if output.place is not None:
        finish_retry(output.place)
    if job.resume == "redo":
        output.clear()
    else:
        check_record(output, record)
    # A table takes a record as soon as it exists; a folder takes it before that.
    if job.write.table and not output.exists():
        output.settle()
    note = keep_record(output, record)
    if job.retry and output.exists():
        count = take_out_errors(output, input_columns)
        say(f"{job.name}: {count:,} rows with errors are annotated again")
    return note


def _notes(plan: Plan, review: Review) -> list[str]:
    notes = []
    if plan.strays:
        notes.append(f"the output also holds {plan.strays:,} ids that the input does not have")
    surplus = review.rows - review.ids
    if surplus > 0:
        notes.append(f"the output holds {surplus:,} rows too many: ids that are there more than once, or null")
    return notes


def _write_parts(
    job: Job,
    plan: Plan,
    stages: Sequence[Any],
    lock: OutputLock | NoLock,
) -> Counts:
    total = Counts(0, 0)
    for number, part in enumerate(plan.parts, start=1):
        label = f"{job.name}: part {number} of {len(plan.parts)}"
        try:
            lock.check()
            rows = annotated(part, stages, job.write.columns)
            total += _write(job, rows, "append", label)
        except BaseException as error:
            done = number - 1
            ending = "failed" if isinstance(error, Exception) else "was stopped"
            again = "running the job again"
            if job.resume == "redo":
                # Else it would start anew.
                again += " with `resume: true`"
            say(f"{label} {ending}; {done} parts are written, and {again} goes on from there")
            raise
        say(f"{label} is written")
    return total


def _write(job: Job, rows: Annotated, mode: str, label: str) -> Counts:
    spark = rows.frame.sparkSession
    with progress(spark, label):
        interruptible(spark, lambda: write(rows.frame, job.write, mode))
    return counts(rows)


def _named_output(job: Job) -> str:
    place = job.write.place
    file_format = job.write.format
    if not place:
        return str(file_format)
    if not file_format:
        return place
    return f"{place} ({file_format})"
