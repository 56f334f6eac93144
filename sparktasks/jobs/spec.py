"""What a job file may say: each dataclass is one section of it, each field one key; `Key` gives its doc and check."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple

from sparktasks.spark.params import Check, at_least, one_of

FILE_FORMATS = ("parquet", "orc", "avro", "csv", "json", "text", "xml", "binaryfile", "image")
MODES = ("append", "overwrite", "ignore", "error", "errorifexists")
RESUMES = ("redo", "adopt")
DEFAULT_CHUNKS = 16


class Key(NamedTuple):
    """What a key is for, which values it takes, and how a string is spelled before it is checked."""

    doc: str
    check: Check | None = None
    spelling: Callable[[str], str] = str
    required: bool = False


def format_name(name: str) -> str:
    """Return a format's name in lower case, since Spark takes it in any; a class goes by its own name.

    >>> format_name("Parquet"), format_name("com.acme.Rows")
    ('parquet', 'com.acme.Rows')
    """
    return name if "." in name else name.lower()


@dataclass(frozen=True)
class SparkSection:
    """The session to start; a session that runs already, or spark-submit's, keeps its own settings."""

    master: Annotated[str | None, Key("where Spark runs, such as local[4] or spark://host:7077")] = None
    remote: Annotated[str | None, Key("a Spark Connect server, such as sc://host:15002, instead of a master")] = None
    config: Annotated[dict[str, Any], Key("Spark settings by name")] = field(default_factory=dict)


@dataclass(frozen=True)
class ReadSection:
    """Where the rows come from."""

    format: Annotated[str | None, Key("any format Spark reads", spelling=format_name)] = None
    path: Annotated[list[str] | None, Key("a path, or a list of them")] = None
    table: Annotated[str | None, Key("a table's name, instead of format and path")] = None
    options: Annotated[dict[str, Any], Key("the format's options")] = field(default_factory=dict)
    schema: Annotated[str | None, Key("the columns, as SQL writes them: id bigint, text string")] = None
    where: Annotated[str | None, Key("an SQL condition that rows must meet")] = None
    columns: Annotated[
        list[str] | None,
        Key("SQL expressions for the columns to read, such as casts; without this, all"),
    ] = None


@dataclass(frozen=True)
class StageSection:
    """One stage: its class, the model's source and the ONNX file in it (by name or by precision), its params."""

    name: str
    source: str | None
    file: str | None
    precision: str | Mapping[str, str] | None
    params: dict[str, Any]


@dataclass(frozen=True)
class WriteSection:
    """Where the rows go."""

    format: Annotated[str | None, Key("any format Spark writes", spelling=format_name)] = None
    path: Annotated[str | None, Key("the folder to write")] = None
    table: Annotated[str | None, Key("a table's name, instead of a path")] = None
    mode: Annotated[
        str | None,
        Key(
            "what to do with output that already exists; without this, error",
            check=one_of(*MODES),
            spelling=str.lower,
        ),
    ] = None
    partitionBy: Annotated[list[str], Key("columns whose values become folders")] = field(default_factory=list)
    options: Annotated[dict[str, Any], Key("the format's options")] = field(default_factory=dict)
    columns: Annotated[
        list[str] | None,
        Key("SQL expressions for the columns to write; without this, all"),
    ] = None

    @property
    def place(self) -> str | None:
        """The path or the table; None where the format itself knows where to."""
        return self.path or self.table


@dataclass(frozen=True)
class Job:
    """A whole job file."""

    read: Annotated[ReadSection, Key("where the rows come from", required=True)]
    write: Annotated[WriteSection, Key("where the rows go", required=True)]
    spark: Annotated[SparkSection, Key("the session to start")] = field(default_factory=SparkSection)
    stages: Annotated[tuple[StageSection, ...], Key("the stages, in order")] = ()
    pipeline: Annotated[str | None, Key("a saved PipelineModel, instead of stages")] = None
    id: Annotated[str | None, Key("the column that tells rows apart, for resume")] = None
    resume: Annotated[
        bool | str,
        Key(
            "whether to leave out rows that an earlier run wrote; redo writes all again, adopt takes what is there as "
            "it is",
            check=one_of(True, False, *RESUMES),
            spelling=str.lower,
        ),
    ] = False
    retry: Annotated[
        str | None,
        Key(
            "with resume: rows to annotate again although they are written",
            check=one_of("errors"),
            spelling=str.lower,
        ),
    ] = None
    chunks: Annotated[
        int | None,
        Key("with resume: parts that are written one by one", check=at_least(1)),
    ] = None
    onError: Annotated[
        str | None,
        Key(
            "what a fault in one row's data does, for every stage",
            check=one_of("keep", "fail"),
            spelling=str.lower,
        ),
    ] = None
    name: str = "job"
