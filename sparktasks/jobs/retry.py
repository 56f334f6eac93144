"""Taking rows with errors out of a resumed job's output, so that they count as missing and are annotated again.

Files cannot lose single rows, so those files that hold one are replaced by others without it, in steps that can be
repeated: a run that is killed between any two of them loses no row and leaves none twice, once the next run has looked.

    OUTPUT/_sparktasks.retry/        the good rows of the files that go, being written
    OUTPUT/_sparktasks.retry.json    they are written whole: move them up, and remove the files named here
"""

from __future__ import annotations

import dataclasses
import json
import os
from urllib.parse import unquote, urlparse

from pyspark.sql import Column
from pyspark.sql import functions as F

from sparktasks.errors import ColumnError, JobError, OutputError, listed
from sparktasks.jobs.files import Place
from sparktasks.jobs.output import Output
from sparktasks.jobs.storage import write
from sparktasks.spark.vectorized import quoted

_FOLDER = "_sparktasks.retry"
_JOURNAL = "_sparktasks.retry.json"
_FILE = "sparktasks_file"


def take_out_errors(output: Output, own: list[str]) -> int:
    """Take the rows with errors out of an output, and return how many they were; ``own`` are the input's columns."""
    if output.place is None:
        raise JobError(
            f"{output.job.name}: 'retry: errors' replaces files of {output.name}, where this process cannot look"
        )
    test = output.error_test(own)
    if test is None:
        raise ColumnError(
            f"{output.job.name}: 'retry: errors' finds rows with errors by an annotation column, or by a column of "
            "the output called "
            "'error' or '..._error', as Finisher(values=['result', 'error']) writes it. Columns written: "
            f"{listed(output.schema.names)}"
        )
    faulty = output.rows().where(test).groupBy(F.col("_metadata.file_path").alias(_FILE)).count().collect()
    if faulty:
        _replace(output, output.place, [row[_FILE] for row in faulty], ~test)
    return sum(row["count"] for row in faulty)


def _replace(output: Output, place: Place, uris: list[str], is_good: Column) -> None:
    """Write the good rows of some files anew, and put the new files in the place of the old ones."""
    old = [_path_of(uri, place) for uri in uris]
    unknown = sorted(set(old) - set(place.files.data_files(place.path)))
    if unknown:
        raise OutputError(
            f"{output.job.name}: rows were read from files that {output.name} does not hold: {listed(unknown[:3])}"
        )
    kept = output.rows().where(F.col("_metadata.file_path").isin(uris) & is_good)
    section = dataclasses.replace(output.job.write, path=place.inside(_FOLDER))
    write(kept.select(*map(quoted, output.schema.names)), section, "overwrite")
    place.files.replace(place.inside(_JOURNAL), json.dumps({"remove": old}))
    finish_retry(place)


def finish_retry(place: Place) -> None:
    """Complete what a killed run had begun to take out: all of it where its new files are whole, else nothing."""
    journal = place.files.read(place.inside(_JOURNAL))
    folder = place.inside(_FOLDER)
    if journal is not None:
        for path in list(place.files.data_files(folder)):
            place.files.rename(path, place.inside(path.removeprefix(folder).lstrip("/")))
        for path in json.loads(journal)["remove"]:
            place.files.remove(path)
    place.files.remove_folder(folder)
    place.files.remove(place.inside(_JOURNAL))


def _path_of(uri: str, place: Place) -> str:
    """Return a file's path, of the form that `Files.data_files` gives, from the encoded URI that Spark gives."""
    parsed = urlparse(uri)
    path = unquote(parsed.path)
    return os.path.realpath(path) if place.files.is_local else f"{parsed.scheme}://{parsed.netloc}{path}"
