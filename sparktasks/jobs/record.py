"""What an output was made with: kept beside its rows, and compared before a run adds others.

    OUTPUT/_sparktasks.json    for a path; Spark's readers see no name that begins with _
    the property 'sparktasks'  for a table, where its catalog takes properties

Params that change how fast a job runs, but not what it writes, are left out.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyspark.sql.types import StructType

import sparktasks
from sparktasks.errors import JobError
from sparktasks.jobs.output import Output
from sparktasks.jobs.spec import Job
from sparktasks.spark.annotator import Annotator, ModelAnnotator

FILE = "_sparktasks.json"
_PROPERTY = "sparktasks"
_FORMAT = 1
_SPEED_ONLY = frozenset({"device", "batchTokens", "batchInvariant", "cacheTokens", "maxSequences", "onError"})
_HARMLESS_OPTIONS = frozenset({"compression", "maxrecordsperfile"})
# A table's property has little room in some catalogs; of a longer value only the hash is kept.
_LONGEST = 120
_CHANGES_SHOWN = 6


@dataclass(frozen=True)
class Record:
    """What a job's rows depend on, by name; ``defaults`` are the params among them that nobody set."""

    values: Mapping[str, Any]
    defaults: frozenset[str] = frozenset()

    def changes_from(self, before: Mapping[str, Any]) -> Iterator[str]:
        """Say what is not as it was; a param that an older version did not have may stand at its default."""
        if before.get("stages") != self.values["stages"]:
            yield _change("stages", before.get("stages"), self.values["stages"])
        else:
            yield from self._changed_params(before)
        for name, value in self.values.items():
            if ": " not in name and name != "stages" and before.get(name) != value:
                yield _change(name, before.get(name), value)

    def _changed_params(self, before: Mapping[str, Any]) -> Iterator[str]:
        for name, value in self.values.items():
            is_new = name not in before
            if ": " in name and before.get(name) != value and not (is_new and name in self.defaults):
                yield _change(name, before.get(name), value)


def _change(name: str, before: Any, now: Any) -> str:
    return f"{name}: it was {json.dumps(before)}, it is {json.dumps(now)}"


def record_of(job: Job, stages: Sequence[Any], schema: StructType) -> Record:
    """Return what the rows of a job depend on, besides its input; ``schema`` is that of the columns it writes."""
    values: dict[str, Any] = {"id": job.id, "stages": [type(stage).__name__ for stage in stages]}
    defaults = set()
    for index, stage in enumerate(stages):
        who = f"stages[{index}] {type(stage).__name__}"
        if isinstance(stage, ModelAnnotator) and stage.needs_model():
            values[f"{who}: model"] = stage.getBundle().hash
        if not isinstance(stage, Annotator):  # one of Spark's own: what it learnt has no other name
            values[f"{who}: uid"] = stage.uid
        for param in stage.params:
            if stage.isDefined(param) and param.name not in _SPEED_ONLY:
                values[f"{who}: {param.name}"] = stage.getOrDefault(param)
                if not stage.isSet(param):
                    defaults.add(f"{who}: {param.name}")
    values |= {
        "read columns": job.read.columns,
        "write format": job.write.format,
        "write partitionBy": job.write.partitionBy,
        "write options": _options(job.write.options),
        "write columns": job.write.columns,
        "columns written": [f"{field.name} {field.dataType.simpleString()}" for field in schema.fields],
    }
    return Record({name: _short(value) for name, value in values.items()}, frozenset(defaults))


def _options(options: Mapping[str, Any]) -> dict[str, str]:
    return {name.lower(): str(value) for name, value in options.items() if name.lower() not in _HARMLESS_OPTIONS}


def _short(value: Any) -> Any:
    """Return a value as JSON gives it back, or its hash where it is long."""
    text = json.dumps(value, sort_keys=True, default=str)
    if len(text) > _LONGEST and not isinstance(value, list):
        return f"sha256 {hashlib.sha256(text.encode()).hexdigest()[:32]}"
    return json.loads(text)


def check_record(output: Output, record: Record) -> None:
    """Raise `JobError` where the rows that are there are not those of this job, and name what changed.

    With ``resume: adopt`` only their columns must fit.
    """
    before = _stored(output)
    if before is None and output.is_empty() and not _has_foreign_leftovers(output):
        return
    changes = list(record.changes_from(before)) if before is not None else []
    if before is not None and not changes:
        return
    if output.job.resume == "adopt" or not _can_be_kept(output):
        output.check_types()
        return
    raise JobError(_refusal(output, changes))


def _refusal(output: Output, changes: Sequence[str]) -> str:
    if not changes:
        return (
            f"{output.job.name}: {output.name} holds rows, but no {FILE} that says what made them, so that this job "
            "cannot "
            "tell whether they are its own. Set `resume: adopt` once to take them for its own, `resume: redo` to "
            "replace "
            "them, or write to another place"
        )
    rest = f"; and {len(changes) - _CHANGES_SHOWN} more" if len(changes) > _CHANGES_SHOWN else ""
    return (
        f"{output.job.name}: {output.name} holds rows that were made in another way. "
        f"{'; '.join(changes[:_CHANGES_SHOWN])}"
        f"{rest}. Set `resume: redo` to replace them, `resume: adopt` once to keep them and add the missing ones, or "
        "write "
        "to another place"
    )


def _has_foreign_leftovers(output: Output) -> bool:
    """Tell whether a killed run that was none of ours left finished tasks, which the next commit would bring in."""
    return output.place is not None and output.has_leftovers()


def _can_be_kept(output: Output) -> bool:
    return _properties(output) is not None if output.job.write.table else output.place is not None


def _stored(output: Output) -> dict[str, Any] | None:
    """Return the values of the record beside the output's rows; None where there is none."""
    text = _property(output) if output.job.write.table else _file(output)
    try:
        content = json.loads(text) if text else None
    except ValueError:
        return None
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        return None
    values: dict[str, Any] = content["job"]
    return values


def _file(output: Output) -> str | None:
    return output.place.files.read(output.place.inside(FILE)) if output.place else None


def _property(output: Output) -> str:
    digits = (_properties(output) or {}).get(_PROPERTY, "")
    try:
        return zlib.decompress(bytes.fromhex(digits)).decode() if digits else ""
    except (ValueError, zlib.error):
        return ""


def _properties(output: Output) -> dict[str, str] | None:
    """Return a table's properties; None where its catalog has none."""
    if not output.exists():
        return {}
    try:
        rows = output.spark.sql(f"SHOW TBLPROPERTIES {output.job.write.table}").collect()
    except Exception:  # each catalog without properties refuses in its own way
        return None
    return {row["key"]: row["value"] for row in rows}


def keep_record(output: Output, record: Record) -> str:
    """Store the record beside the output, if it is not there already; return what there is to say where that is not
    possible."""
    if _stored(output) == record.values:
        return ""
    text = json.dumps({"format": _FORMAT, "version": sparktasks.__version__, "job": record.values}, indent=1)
    if output.job.write.table:
        return _set_property(output, text)
    if output.place is None:
        return f"{FILE} was not kept in {output.name}, where this process cannot look: later runs compare columns only"
    output.place.files.replace(output.place.inside(FILE), text + "\n")
    return ""


def _set_property(output: Output, text: str) -> str:
    # As digits, since Spark hides values with words such as "token" from everyone who asks, and catalogs have little
    # room.
    digits = zlib.compress(text.encode()).hex()
    try:
        output.spark.sql(f"ALTER TABLE {output.job.write.table} SET TBLPROPERTIES ('{_PROPERTY}' = '{digits}')")
    except Exception as error:
        return f"{output.name} takes no properties ({type(error).__name__}): later runs compare columns only"
    return ""
