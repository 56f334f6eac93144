"""The job file: YAML in, frozen dataclasses out, every key and value checked before Spark is started.

Each dataclass is one section, each field one key of it; `Key` gives the key's doc and check.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

import yaml

from sparktasks.errors import JobError, ParamError, did_you_mean, listed
from sparktasks.jobs.stages import MODEL_KEYS, check_stage
from sparktasks.spark.params import Check, Converter, at_least, one_of

FILE_FORMATS = ("parquet", "orc", "avro", "csv", "json", "text", "xml", "binaryFile", "image")
MODES = ("append", "overwrite", "ignore", "error", "errorifexists")
RESUMES = ("redo", "adopt")
DEFAULT_CHUNKS = 16

S = TypeVar("S")


class Key(NamedTuple):
    """What a key is for, and which values it takes."""

    doc: str
    check: Check | None = None


@dataclass(frozen=True)
class SparkSection:
    """The session to start; a session that runs already, or spark-submit's, keeps its own settings."""

    master: Annotated[str | None, Key("where Spark runs, such as local[4] or spark://host:7077")] = None
    remote: Annotated[str | None, Key("a Spark Connect server, such as sc://host:15002, instead of a master")] = None
    config: Annotated[dict[str, Any], Key("Spark settings by name")] = field(default_factory=dict)


@dataclass(frozen=True)
class ReadSection:
    """Where the rows come from."""

    format: Annotated[str | None, Key("any format Spark reads")] = None
    path: Annotated[list[str] | None, Key("a path, or a list of them")] = None
    table: Annotated[str | None, Key("a table's name, instead of format and path")] = None
    options: Annotated[dict[str, Any], Key("the format's options")] = field(default_factory=dict)
    schema: Annotated[str | None, Key("the columns, as SQL writes them: id bigint, text string")] = None
    where: Annotated[str | None, Key("an SQL condition that rows must meet")] = None
    columns: Annotated[
        list[str] | None, Key("SQL expressions for the columns to read, such as casts; all without it")
    ] = None


@dataclass(frozen=True)
class StageSection:
    """One stage: its class, the model's source and the ONNX file in it (by name or by precision), its params."""

    name: str
    source: str | None
    file: str | None
    precision: str | None
    params: dict[str, Any]


@dataclass(frozen=True)
class WriteSection:
    """Where the rows go."""

    format: Annotated[str | None, Key("any format Spark writes")] = None
    path: Annotated[str | None, Key("the folder to write")] = None
    table: Annotated[str | None, Key("a table's name, instead of a path")] = None
    mode: Annotated[
        str | None, Key("what to do with output that is there already; error without one", one_of(*MODES))
    ] = None
    partitionBy: Annotated[list[str], Key("columns whose values become folders")] = field(default_factory=list)
    options: Annotated[dict[str, Any], Key("the format's options")] = field(default_factory=dict)
    columns: Annotated[list[str] | None, Key("SQL expressions for the columns to write; all without it")] = None


@dataclass(frozen=True)
class Job:
    """A whole job file."""

    read: Annotated[ReadSection, Key("where the rows come from")]
    write: Annotated[WriteSection, Key("where the rows go")]
    spark: Annotated[SparkSection, Key("the session to start")] = field(default_factory=SparkSection)
    stages: Annotated[tuple[StageSection, ...], Key("the stages, in order")] = ()
    pipeline: Annotated[str | None, Key("a saved PipelineModel, instead of stages")] = None
    id: Annotated[str | None, Key("the column that tells rows apart, for resume")] = None
    resume: Annotated[
        bool | str,
        Key(
            (
                "whether rows that an earlier run wrote are left out; redo writes all again, adopt takes what is "
                "there as it is"
            ),
            one_of(True, False, *RESUMES),
        ),
    ] = False
    retry: Annotated[
        str | None, Key("with resume: rows to annotate again although they are written", one_of("errors"))
    ] = None
    chunks: Annotated[int | None, Key("with resume: parts that are written one by one", at_least(1))] = None
    onError: Annotated[
        str | None, Key("what a fault in one row's data does, for every stage", one_of("keep", "fail"))
    ] = None
    name: str = "job"


def load_job(path: str | Path) -> Job:
    """Read and check a job file; `JobError` names the key, what is wrong with it and what is allowed."""
    file = Path(path)
    if not file.is_file():
        raise JobError(f"there is no job file {str(path)!r}")
    try:
        content = yaml.load(_text(file), Loader=_Loader)
    except yaml.YAMLError as error:
        raise JobError(f"{file.name} is not valid YAML: {error}") from error
    if isinstance(content, Mapping):  # a place for anchors, as in Compose files
        content = {name: value for name, value in content.items() if not str(name).startswith("x-")}
    job = _section(Job, content, file.name)
    job = dataclasses.replace(job, name=file.stem)
    _check_whole(job, file.name)
    return job


def _text(file: Path) -> str:
    raw = file.read_bytes()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise JobError(
            f"{file.name} is not written in UTF-8: line {line} holds the byte {raw[error.start]:#04x}, as Latin-1 and "
            "other "
            "encodings write a letter. Save it as UTF-8"
        ) from None


class _Loader(yaml.SafeLoader):
    """A loader that refuses a key given twice, of which YAML would silently keep the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for name in (name for name, _ in node.value if isinstance(name, yaml.ScalarNode)):
            if name.value in seen:
                raise yaml.YAMLError(f"the key {name.value!r} is given twice, again in line {name.start_mark.line + 1}")
            seen.add(name.value)
        return super().construct_mapping(node, deep)


# 1e-3 is a number, as in YAML 1.2; PyYAML takes it for a string.
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+[eE][-+]?\d+$"), list("-+0123456789"))


def _section(cls: type[S], content: Any, where: str) -> S:
    """Make a section of a mapping."""
    kinds: dict[str, Any] = {
        name: get_args(kind)
        for name, kind in get_type_hints(cls, include_extras=True).items()
        if get_origin(kind) is Annotated
    }
    if not isinstance(content, Mapping):
        raise JobError(f"{where} is {content!r}, but it must be a mapping with some of these keys: {listed(kinds)}")
    for name in content:
        if name not in kinds:
            raise JobError(
                f"{where}: there is no key {name!r}.{did_you_mean(str(name), kinds)} Allowed: {listed(kinds)}"
            )
    fields: Any = dataclasses.fields(cls)  # type: ignore[arg-type]
    needed = {field.name for field in fields if field.default is field.default_factory is dataclasses.MISSING}
    for name in sorted(needed - set(content)):
        raise JobError(f"{where}: the key {name!r} is missing: {kinds[name][1].doc}")
    # A key without a value, such as `options:` above lines that are commented out, is a key left out.
    given = {name: value for name, value in content.items() if value is not None or name in needed}
    return cls(**{name: _value(name, value, kinds[name], where) for name, value in given.items()})


def _value(name: str, value: Any, declared: tuple[Any, Key], where: str) -> Any:
    kind, key = declared
    if dataclasses.is_dataclass(kind):
        return _section(kind, value, f"{where}: {name}")  # type: ignore[arg-type]
    if get_origin(kind) is tuple:
        return _stages(value, f"{where}: {name}")
    try:
        converted = Converter(name, key.doc, kind, key.check)(value)
    except ParamError as error:
        raise JobError(f"{where}: {error}") from None
    if get_origin(kind) is dict:
        return {str(option): _setting(setting, f"{where}: {name}: {option}") for option, setting in converted.items()}
    return converted


def _setting(value: Any, where: str) -> Any:
    if not isinstance(value, (str, int, float, bool)):
        raise JobError(f"{where} is {value!r}, but it must be a string, a number, true or false")
    return value


def _stages(content: Any, where: str) -> tuple[StageSection, ...]:
    if not isinstance(content, list) or not content:
        raise JobError(
            f"{where} is {content!r}, but it must be a list of stages, each written as `- ClassName: {{param: value}}`"
        )
    return tuple(_stage(item, f"{where}[{index}]") for index, item in enumerate(content))


def _stage(item: Any, where: str) -> StageSection:
    """Read ``ClassName``, or ``{ClassName: {param: value}}``, and try the class and its params."""
    named = {item: None} if isinstance(item, str) else item
    if not isinstance(named, Mapping) or len(named) != 1:
        raise JobError(
            f"{where} is {item!r}, but it must be one class with its params: `- ClassName: {{param: value}}`"
        )
    name, params = next(iter(named.items()))
    if not isinstance(params, (Mapping, type(None))):
        raise JobError(f"{where}: {name} is {params!r}, but it must be a mapping of params")
    values = {str(param): value for param, value in (params or {}).items()}
    check_stage(str(name), values, where)
    model = [values.pop(key, None) for key in MODEL_KEYS]
    source, file, precision = (None if value is None else str(value) for value in model)
    return StageSection(str(name), source, file, precision, values)


def _check_whole(job: Job, where: str) -> None:
    """Check what concerns more than one key."""
    if bool(job.stages) == (job.pipeline is not None):
        raise JobError(f"{where}: give either 'stages' (a list) or 'pipeline' (a saved PipelineModel)")
    if job.spark.master and job.spark.remote:
        raise JobError(f"{where}: spark: 'master' and 'remote' exclude each other")
    for name, section in (("read", job.read), ("write", job.write)):
        _check_place(section, f"{where}: {name}")
    if job.read.table and (job.read.format or job.read.schema):
        raise JobError(f"{where}: read: a table knows its format and its schema: leave 'format' and 'schema' out")
    if job.resume:
        _check_resume(job, where)
    for name in ("chunks", "retry"):
        if not job.resume and getattr(job, name) is not None:
            raise JobError(f"{where}: {name!r} has no effect without 'resume: true'")


def _check_place(section: ReadSection | WriteSection, where: str) -> None:
    if section.table and section.path:
        raise JobError(f"{where}: 'table' and 'path' exclude each other")
    if not section.table and section.format is None:
        raise JobError(
            f"{where}: the key 'format' is missing: any format Spark knows, such as {listed(FILE_FORMATS[:5])}"
        )
    if not section.table and not section.path and section.format in FILE_FORMATS:
        raise JobError(f"{where}: the format {section.format!r} needs a 'path'")


def _check_resume(job: Job, where: str) -> None:
    if job.id is None:
        raise JobError(f"{where}: 'resume' needs 'id': the name of a column that is unique and never null")
    if job.write.mode not in (None, "append"):
        raise JobError(
            f"{where}: write: mode={job.write.mode!r} and 'resume: true' exclude each other: a resumed job adds the "
            "missing rows "
            "to what is there (append). Leave 'mode' out, or leave 'resume' out"
        )
    if job.id in job.write.partitionBy:
        raise JobError(
            f"{where}: write: partitionBy names the id column {job.id!r}, which would make a folder for every row"
        )
    if not job.write.path and not job.write.table:
        raise JobError(f"{where}: 'resume' needs an output that can be read again: give write: 'path' or 'table'")
    if job.retry and job.resume == "redo":
        raise JobError(f"{where}: 'retry: errors' and 'resume: redo' cannot be combined: redo writes every row again")
    if job.retry and job.write.format not in FILE_FORMATS:
        raise JobError(
            f"{where}: 'retry: errors' replaces rows in files, so write needs a 'path' and one of these "
            f"formats: {listed(FILE_FORMATS[:5])}"
        )
