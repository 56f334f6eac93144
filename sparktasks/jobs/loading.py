"""The job file: YAML in, frozen dataclasses out, every key and value checked before Spark is started."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from sparktasks.errors import JobError, ParamError, did_you_mean, listed
from sparktasks.jobs.spec import FILE_FORMATS, Job, Key, ReadSection, StageSection, WriteSection
from sparktasks.jobs.stages import MODEL_KEYS, check_stage
from sparktasks.jobs.yaml_file import read_yaml
from sparktasks.spark.params import Converter

_EXAMPLES = listed(FILE_FORMATS[:5])

S = TypeVar("S")


def load_job(path: str | Path) -> Job:
    """Read and check a job file; `JobError` names the key, what is wrong with it and what is allowed."""
    file = Path(path)
    if not file.is_file():
        raise JobError(f"there is no job file {str(path)!r}")
    content = read_yaml(file)
    job = _section(Job, content, file.name)
    _check_together(job, file.name)
    return dataclasses.replace(job, name=file.stem)


def _section(cls: type[S], content: Any, where: str) -> S:
    """Make a section of a mapping."""
    hints = get_type_hints(cls, include_extras=True)
    keys = {name: get_args(hint) for name, hint in hints.items() if get_origin(hint) is Annotated}
    if not isinstance(content, Mapping):
        raise JobError(f"{where} is {content!r}, but it must be a mapping with some of these keys: {listed(keys)}")
    unknown = set(content) - set(keys)
    for name in sorted(map(str, unknown)):
        # x-something is a place for anchors, as in Compose files.
        if not name.startswith("x-"):
            hint = did_you_mean(name, keys)
            raise JobError(f"{where}: there is no key {name!r}.{hint} Allowed: {listed(keys)}")
    values = {}
    for name, (kind, key) in keys.items():
        value = content.get(name)
        # A key without a value, such as `options:` above lines that are commented out, is a key left out.
        if value is not None:
            values[name] = _value(name, value, kind, key, where)
        elif key.required:
            raise JobError(f"{where}: the key {name!r} is missing: {key.doc}")
    return cls(**values)


def _value(name: str, value: Any, kind: Any, key: Key, where: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return _section(kind, value, f"{where}: {name}")  # type: ignore[arg-type]
    if get_origin(kind) is tuple:
        return _stages(value, f"{where}: {name}")
    if isinstance(value, str):
        value = key.spelling(value)
    try:
        converted = Converter(name, key.doc, kind, key.check)(value)
    except ParamError as error:
        raise JobError(f"{where}: {error}") from None
    if isinstance(converted, dict):
        return _options(converted, f"{where}: {name}")
    return converted


def _options(content: Mapping[Any, Any], where: str) -> dict[str, Any]:
    options = {}
    for name, value in content.items():
        if not isinstance(value, (str, int, float, bool)):
            raise JobError(f"{where}: {name} is {value!r}, but it must be a string, a number, true or false")
        options[str(name)] = value
    return options


def _stages(content: Any, where: str) -> tuple[StageSection, ...]:
    if not isinstance(content, list) or not content:
        raise JobError(
            f"{where} is {content!r}, but it must be a list of stages, each written as `- ClassName: {{param: value}}`"
        )
    return tuple(_stage(item, f"{where}[{index}]") for index, item in enumerate(content))


def _stage(item: Any, where: str) -> StageSection:
    """Read ``ClassName``, or ``{ClassName: {param: value}}``, and try the class and its params."""
    stage = {item: None} if isinstance(item, str) else item
    if not isinstance(stage, Mapping) or len(stage) != 1:
        raise JobError(
            f"{where} is {item!r}, but it must be one class with its params: `- ClassName: {{param: value}}`"
        )
    # YAML reads `- Finisher:` as a class without params, and `- Finisher` as a string.
    [(name, content)] = stage.items()
    params = {} if content is None else content
    if not isinstance(params, Mapping):
        raise JobError(f"{where}: {name} is {params!r}, but it must be a mapping of params")
    values = {str(param): value for param, value in params.items()}
    check_stage(str(name), values, where)
    source, file, precision = (values.pop(key, None) for key in MODEL_KEYS)
    return StageSection(
        name=str(name),
        source=_text(source),
        file=_text(file),
        # The graphs of a model may have precisions of their own.
        precision=precision if isinstance(precision, Mapping) else _text(precision),
        params=values,
    )


def _text(value: Any) -> str | None:
    # A model may be called 2024, which YAML reads as a number.
    return None if value is None else str(value)


def _check_together(job: Job, where: str) -> None:
    """Raise `JobError` where keys that are right by themselves contradict each other."""
    has_pipeline = job.pipeline is not None
    has_schema_of_its_own = job.read.format or job.read.schema
    faults = [
        (
            bool(job.stages) == has_pipeline,
            "give either 'stages' (a list) or 'pipeline' (a saved PipelineModel)",
        ),
        (
            job.spark.master and job.spark.remote,
            "spark: 'master' and 'remote' cannot be combined",
        ),
        *_place_faults("read", job.read),
        *_place_faults("write", job.write),
        (
            job.read.table and has_schema_of_its_own,
            "read: a table knows its format and its schema: leave 'format' and 'schema' out",
        ),
    ]
    if job.resume:
        faults += _resume_faults(job)
    else:
        faults += [
            (job.chunks is not None, "'chunks' has no effect without 'resume: true'"),
            (job.retry is not None, "'retry' has no effect without 'resume: true'"),
        ]
    for is_fault, message in faults:
        if is_fault:
            raise JobError(f"{where}: {message}")


def _place_faults(name: str, section: ReadSection | WriteSection) -> list[tuple[Any, str]]:
    """Return what may be wrong with where a section reads or writes: whether it is, and how to say so."""
    if section.table:
        return [(section.path, f"{name}: 'table' and 'path' cannot be combined")]
    needs_path = section.format in FILE_FORMATS
    return [
        (
            section.format is None,
            f"{name}: the key 'format' is missing: any format Spark knows, such as {_EXAMPLES}",
        ),
        (
            needs_path and not section.path,
            f"{name}: the format {section.format!r} needs a 'path'",
        ),
    ]


def _resume_faults(job: Job) -> list[tuple[Any, str]]:
    """Return what may be wrong with a job that can be resumed: whether it is, and how to say so."""
    section = job.write
    partitions = [name.lower() for name in section.partitionBy]
    writes_files = section.path and section.format in FILE_FORMATS
    return [
        (
            job.id is None,
            "'resume' needs 'id': the name of a column that is unique and never null",
        ),
        (
            section.mode not in (None, "append"),
            f"write: mode={section.mode!r} and 'resume: true' cannot be combined: a resumed job adds the missing rows "
            "to what is there (append). Leave 'mode' out, or leave 'resume' out",
        ),
        (
            str(job.id).lower() in partitions,
            f"write: partitionBy names the id column {job.id!r}, which would make a folder for every row",
        ),
        (
            section.place is None,
            "'resume' needs an output that can be read again: give write: 'path' or 'table'",
        ),
        (
            job.retry and job.resume == "redo",
            "'retry: errors' and 'resume: redo' cannot be combined: redo writes every row again",
        ),
        (
            job.retry and not writes_files,
            f"'retry: errors' replaces rows in files, so write needs a 'path' and one of these formats: {_EXAMPLES}",
        ),
    ]
