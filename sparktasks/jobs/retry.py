"""Taking rows with errors out of a resumed job's output, so that they count as missing and are annotated again.

Files cannot lose single rows, so those files that hold one are replaced by others without it, in steps that can be
repeated: a run that is killed between any two of them loses no row and leaves none twice, once the next run has looked.

    OUTPUT/_sparktasks.retry/        the good rows of the files that go, being written
    OUTPUT/_sparktasks.retry.json    they are written whole: move them up, and remove the files named here
"""

from __future__ import annotations

import dataclasses
import json

from pyspark.sql import Column
from pyspark.sql import functions as F

from sparktasks.errors import ColumnError, JobError, OutputError, listed
from sparktasks.jobs.files import Place, path_of_uri
from sparktasks.jobs.output import Output
from sparktasks.jobs.stages import any_of
from sparktasks.jobs.storage import write
from sparktasks.spark.vectorized import quoted

_FOLDER = "_sparktasks.retry"
_JOURNAL = "_sparktasks.retry.json"
_FILE = "sparktasks_file"
_FILE_PATH = "_metadata.file_path"


def take_out_errors(output: Output, input_columns: list[str]) -> int:
    """Take the rows with errors out of an output, and return how many they were."""
    if output.place is None:
        raise JobError(
            f"{output.job.name}: 'retry: errors' replaces files of {output.name}, where this process cannot look"
        )
    tests = output.error_tests(input_columns)
    if not tests:
        raise ColumnError(
            f"{output.job.name}: 'retry: errors' finds rows with errors by an annotation column, or by a column of the "
            "output called 'error' or '..._error', as Finisher(values=['result', 'error']) writes it. Columns written: "
            f"{listed(output.schema.names)}"
        )
    has_error = any_of(tests)
    by_file = output.rows().where(has_error).groupBy(F.col(_FILE_PATH).alias(_FILE))
    faulty = by_file.count().collect()
    if faulty:
        uris = [row[_FILE] for row in faulty]
        _replace(output, output.place, uris, ~has_error)
    return sum(row["count"] for row in faulty)


def _replace(output: Output, place: Place, uris: list[str], is_good: Column) -> None:
    """Write the good rows of some files anew, and put the new files in the place of the old ones."""
    replaced = [path_of_uri(uri) for uri in uris]
    unknown = set(replaced).difference(place.files.data_files(place.path))
    if unknown:
        examples = sorted(unknown)[:3]
        raise OutputError(
            f"{output.job.name}: rows were read from files that {output.name} does not hold: {listed(examples)}"
        )
    kept = output.rows().where(F.col(_FILE_PATH).isin(uris) & is_good)
    columns = [quoted(name) for name in output.schema.names]
    section = dataclasses.replace(output.job.write, path=place.inside(_FOLDER))
    write(kept.select(*columns), section, "overwrite")
    # From here on the new files count, from the next line on the old ones go.
    place.files.replace(place.inside(_JOURNAL), json.dumps({"remove": replaced}))
    finish_retry(place)


def finish_retry(place: Place) -> None:
    """Complete what a killed run had begun to take out: all of it where its new files are whole, else nothing."""
    journal = place.files.read(place.inside(_JOURNAL))
    folder = place.inside(_FOLDER)
    if journal is not None:
        # A list, since moving files disturbs the walk through their folder.
        for path in list(place.files.data_files(folder)):
            name = path.removeprefix(folder).lstrip("/")
            place.files.rename(path, place.inside(name))
        for path in json.loads(journal)["remove"]:
            place.files.remove(path)
    place.files.remove_folder(folder)
    place.files.remove(place.inside(_JOURNAL))
