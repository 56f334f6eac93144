"""What an output was made with: kept beside its rows, and compared before a run adds others.

    OUTPUT/_sparktasks.json    for a path; Spark's readers see no name that begins with _
    the property 'sparktasks'  for a table, where its catalog takes properties

Params that change how fast a job runs, but not what it writes, are left out.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyspark.sql.types import StructType

import sparktasks
from sparktasks.errors import JobError
from sparktasks.jobs.output import Output
from sparktasks.jobs.spec import Job
from sparktasks.jobs.stages import has_model
from sparktasks.spark.annotator import Annotator

FILE = "_sparktasks.json"
_PROPERTY = "sparktasks"
_FORMAT = 1
_SPEED_ONLY = (
    "device",
    "batchTokens",
    "batchInvariant",
    "cacheTokens",
    "maxSequences",
    "onError",
)
_HARMLESS_OPTIONS = ("compression", "maxrecordsperfile")
# A table's property has little room in some catalogs; of a longer value only the hash is kept.
_LONGEST = 120
_CHANGES_SHOWN = 6


@dataclass(frozen=True)
class Record:
    """What a job's rows depend on, by name; ``defaults`` are the params among them that nobody set."""

    values: Mapping[str, Any]
    defaults: frozenset[str] = frozenset()

    def changes_from(self, before: Mapping[str, Any]) -> list[str]:
        """Say what is not as it was; a param that an older version did not have may stand at its default."""
        same_stages = before.get("stages") == self.values["stages"]
        known = {name: self.values[name] for name in self.defaults}
        known.update(before)
        changes = []
        for name, value in self.values.items():
            is_param = ": " in name
            # Of other stages the params are other ones, too, and there is nothing to compare.
            is_comparable = same_stages or not is_param
            old_value = known.get(name)
            if is_comparable and value != old_value:
                changes.append(f"{name}: it was {json.dumps(old_value)}, it is {json.dumps(value)}")
        return changes


def record_of(job: Job, stages: Sequence[Any], schema: StructType) -> Record:
    """Return what the rows of a job depend on, besides its input; ``schema`` is that of the columns it writes."""
    section = job.write
    classes = [type(stage).__name__ for stage in stages]
    columns = [f"{field.name} {field.dataType.simpleString()}" for field in schema.fields]
    values: dict[str, Any] = {
        "id": job.id,
        "stages": classes,
        "read columns": job.read.columns,
        "write format": section.format,
        "write partitionBy": section.partitionBy,
        "write options": _lasting_options(section.options),
        "write columns": section.columns,
        "columns written": columns,
    }
    defaults: set[str] = set()
    for index, stage in enumerate(stages):
        where = f"stages[{index}] {classes[index]}"
        if has_model(stage):
            values[f"{where}: model"] = stage.getBundle().hash
        if not isinstance(stage, Annotator):  # one of Spark's own: what it learnt has no other name
            values[f"{where}: uid"] = stage.uid
        for param, value in stage.extractParamMap().items():
            if param.name in _SPEED_ONLY:
                continue
            name = f"{where}: {param.name}"
            values[name] = value
            if not stage.isSet(param):
                defaults.add(name)
    shortened = {name: _shortened(value) for name, value in values.items()}
    return Record(shortened, frozenset(defaults))


def _lasting_options(options: Mapping[str, Any]) -> dict[str, str]:
    """Return the options of a write that later runs must share."""
    lasting = {name.lower(): str(value) for name, value in options.items()}
    for name in _HARMLESS_OPTIONS:
        lasting.pop(name, None)
    return lasting


def _shortened(value: Any) -> Any:
    """Return a value as JSON gives it back, or its hash where it is long."""
    text = json.dumps(value, sort_keys=True, default=str)
    if len(text) > _LONGEST and not isinstance(value, list):
        digest = hashlib.sha256(text.encode()).hexdigest()
        return f"sha256 {digest[:32]}"
    return json.loads(text)


def check_record(output: Output, record: Record) -> None:
    """Raise `JobError` where the rows that are there are not those of this job, and name what changed.

    With ``resume: adopt``, or where no record can be kept, only their columns must fit.
    """
    before = _stored(output)
    if before is None:
        # Leftovers of a killed run that was none of ours would come in with the next commit.
        has_leftovers = output.place is not None and output.has_leftovers()
        if output.is_empty() and not has_leftovers:
            return
        refusal = (
            f"holds rows, but no {FILE} that says what made them, so that this job cannot tell whether they are its "
            "own. Set `resume: adopt` once to take them for its own, `resume: redo` to replace them, or write to "
            "another place"
        )
    else:
        changes = record.changes_from(before)
        if not changes:
            return
        refusal = (
            f"holds rows that were made in another way. {_listed_changes(changes)}. Set `resume: redo` to replace "
            "them, `resume: adopt` once to keep them and add the missing ones, or write to another place"
        )
    if output.job.resume == "adopt" or not _can_be_kept(output):
        output.check_types()
        return
    raise JobError(f"{output.job.name}: {output.name} {refusal}")


def _listed_changes(changes: Sequence[str]) -> str:
    text = "; ".join(changes[:_CHANGES_SHOWN])
    hidden = len(changes) - _CHANGES_SHOWN
    if hidden > 0:
        text += f"; and {hidden} more"
    return text


def _can_be_kept(output: Output) -> bool:
    if output.job.write.table:
        return _properties(output) is not None
    return output.place is not None


def _stored(output: Output) -> dict[str, Any] | None:
    """Return the values of the record beside the output's rows; None where there is none."""
    text: Any = None
    if output.job.write.table:
        text = _stored_property(output)
    elif output.place is not None:
        text = output.place.files.read(output.place.inside(FILE))
    try:
        content = json.loads(text)
        values: dict[str, Any] = content["job"]
        is_current = content["format"] == _FORMAT
    except (ValueError, TypeError, KeyError):  # none is there, or something else
        return None
    return values if is_current else None


def _stored_property(output: Output) -> str | None:
    properties = _properties(output) or {}
    try:
        compressed = bytes.fromhex(properties[_PROPERTY])
        return zlib.decompress(compressed).decode()
    except (KeyError, ValueError, zlib.error):  # not there, or not ours
        return None


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
    """Store the record beside the output, unless it is there already; return a note where it cannot be stored."""
    if _stored(output) == record.values:
        return ""
    content = {"format": _FORMAT, "version": sparktasks.__version__, "job": record.values}
    text = json.dumps(content, indent=1)
    if output.job.write.table:
        return _set_property(output, text)
    if output.place is None:
        return f"{FILE} was not kept in {output.name}, where this process cannot look: later runs compare columns only"
    output.place.files.replace(output.place.inside(FILE), text + "\n")
    return ""


def _set_property(output: Output, text: str) -> str:
    # As digits, since Spark hides values with words such as "token" from everyone who asks, and compressed, since
    # catalogs have little room.
    digits = zlib.compress(text.encode()).hex()
    statement = f"ALTER TABLE {output.job.write.table} SET TBLPROPERTIES ('{_PROPERTY}' = '{digits}')"
    try:
        output.spark.sql(statement)
    except Exception as error:
        return f"{output.name} takes no properties ({type(error).__name__}): later runs compare columns only"
    return ""
