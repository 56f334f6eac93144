"""Writes what pages say about annotators, from the classes themselves: run it after a change to one of them.

    python scripts/annotators_page.py

It writes all of docs/annotators.md, and the tables between markers in README.md and docs/tasks/README.md. A test in
tests/docs compares the pages with what this script makes.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import sparktasks
from sparktasks.jobs.describe import first_sentence
from sparktasks.spark.annotator import Annotator, ColumnAnnotator, ModelAnnotator
from sparktasks.spark.params import P, declared

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "annotators.md"
README = ROOT / "README.md"
HUB = ROOT / "docs" / "tasks" / "README.md"

# The fields that users know, and the tasks of each. Every task of `sparktasks.TASKS` belongs to one.
FIELDS = {
    "Text": (
        "text-classification",
        "token-classification",
        "text-embedding",
        "text-generation",
        "summarization",
        "translation",
    ),
}

# What annotators read and write that have no annotation column at one of their ends.
ENDS = {
    "DocumentAssembler": ("string, or array<string>", "document"),
    "WordsAssembler": ("array<string>", "document, token"),
    "Finisher": ("annotation columns of any type", "arrays, strings or numbers"),
    "VectorFinisher": ("annotations with embeddings", "a Spark ML vector"),
}

GROUPS = {
    "Into a pipeline": "Text columns become annotation columns.",
    "Text preprocessing": "Annotation columns in, annotation columns out, without a model.",
    "Tasks": "One class for each task. `pretrained()` makes the annotator together with its [model](models.md).",
    "Out of a pipeline": "Annotation columns become plain columns.",
}

_INTRODUCTION = """# Annotators

<!-- Written by scripts/annotators_page.py from the classes. Change those, and run it again. -->

Every annotator of `sparktasks`, with its params. Params are given to the constructor or to `pretrained()`, or set
later: `topK` has `setTopK` and `getTopK`. A value of the wrong type, or one that is not allowed, is refused at once.
`explainParams()` prints the same as this page.
"""


def annotators() -> dict[str, type[Annotator]]:
    """Return the public annotator classes, by name."""
    public = {name: getattr(sparktasks, name) for name in sparktasks.__all__}
    return {name: cls for name, cls in public.items() if inspect.isclass(cls) and issubclass(cls, Annotator)}


def group_of(cls: type[Annotator]) -> str:
    """Return the heading that an annotator stands under."""
    if issubclass(cls, ModelAnnotator):
        return "Tasks"
    if issubclass(cls, ColumnAnnotator):
        return "Text preprocessing"
    return "Into a pipeline" if cls.__name__.endswith("Assembler") else "Out of a pipeline"


def reads(cls: Any) -> str:
    """Say which columns an annotator reads."""
    if not issubclass(cls, ColumnAnnotator):
        return _end(cls)[0]
    needed = ", ".join(_types(kinds) for kinds in cls.reads)
    if not cls.optional:
        return needed
    also = ", ".join(_types(kinds) for kinds in cls.optional)
    return f"{needed}; optionally {'a second ' if also == needed else ''}{also}"


def writes(cls: Any) -> str:
    """Say which type of column an annotator writes; where that depends on params, in the words of the class."""
    if not issubclass(cls, ColumnAnnotator):
        return _end(cls)[1]
    if not isinstance(cls.writes, property):
        return str(cls.writes)
    return " ".join((inspect.getdoc(cls.writes) or "").split()).rstrip(".")


def _end(cls: type) -> tuple[str, str]:
    if cls.__name__ not in ENDS:
        raise SystemExit(f"{cls.__name__} declares no reads and writes: say in ENDS what they are")
    return ENDS[cls.__name__]


def _types(kinds: str | Sequence[str]) -> str:
    return kinds if isinstance(kinds, str) else " or ".join(kinds)


# -- Markdown


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table, in which ``|`` and ``<`` mean themselves."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines) + "\n"


def _cell(text: str) -> str:
    """Escape a cell; what stands between back-quotes needs no entities."""
    parts = text.replace("|", "\\|").split("`")
    return "`".join(part if place % 2 else part.replace("<", "&lt;") for place, part in enumerate(parts))


def _link(name: str) -> str:
    return f"[{name}](#{name.lower()})"


def param_table(params: Iterable[Any]) -> str:
    """Write params with what they take, their defaults and their docs."""
    rows = ((f"`{p.name}`", p.typeConverter.allowed(), f"`{p.default!r}`", p.doc) for p in params)
    return table(("param", "takes", "default", "what it is"), rows)


def declared_by(cls: type) -> dict[str, Any]:
    """Return the params that a class itself declares, by name."""
    return {name: value for name, value in vars(cls).items() if isinstance(value, P)}


def own_params(cls: type) -> list[Any]:
    """Return the params to show with an annotator: its columns, whichever class declares them, and its own."""
    params = {name: value for name, value in declared(cls).items() if _names_columns(name)}
    return list((params | declared_by(cls)).values())


def shared_params(parent: type) -> list[Any]:
    """Return the params that a class shares with all annotators below it."""
    return [value for name, value in declared_by(parent).items() if not _names_columns(name)]


def _names_columns(param: str) -> bool:
    return re.fullmatch("(input|output)Cols?", param) is not None


def shared_parents(cls: type) -> list[type]:
    """Return the classes whose params an annotator has besides its own."""
    return [parent for parent in reversed(cls.__mro__[1:]) if shared_params(parent)]


# -- the pages


def annotators_page() -> str:
    """Return docs/annotators.md."""
    classes = annotators()
    shared = list(dict.fromkeys(parent for cls in classes.values() for parent in shared_parents(cls)))
    return "\n".join([_INTRODUCTION, *_overview(classes), *_sections(classes), *_shared_section(shared)])


def _overview(classes: dict[str, type[Annotator]]) -> Iterator[str]:
    for group in GROUPS:
        yield f"## {group}\n\n{GROUPS[group]}\n"
        yield table(
            ("annotator", "reads", "writes", "what it does"),
            (
                (_link(name), reads(cls), writes(cls), first_sentence(cls))
                for name, cls in classes.items()
                if group_of(cls) == group
            ),
        )


def _shared_section(shared: Sequence[type]) -> Iterator[str]:
    yield "## Shared params\n\nParams that several annotators have in common, by the class that declares them.\n"
    for parent in shared:
        yield f"### {parent.__name__}\n\n{first_sentence(parent)}\n"
        yield param_table(shared_params(parent))


def _sections(classes: dict[str, type[Annotator]]) -> Iterator[str]:
    yield "## The annotators\n"
    for name, cls in classes.items():
        yield f"### {name}\n\n{_cell(first_sentence(cls))}\n"
        yield "\n".join(_facts(name, cls)) + "\n"
        yield param_table(own_params(cls))


def _facts(name: str, cls: Any) -> Iterator[str]:
    task = next((task for task, annotator in sparktasks.TASKS.items() if annotator == name), None)
    if task is not None:
        yield f"- Task: [{task}](tasks/{task}.md)"
    yield _cell(f"- Reads: {reads(cls)}")
    yield _cell(f"- Writes: {writes(cls)}")
    if issubclass(cls, ModelAnnotator):
        starter = cls.starter and f"`{cls.starter}`"
        yield f"- Starter model: {starter or 'none; give a folder, a URI or a hub id'}"
    parents = ", ".join(_link(parent.__name__) for parent in shared_parents(cls))
    if parents:
        yield f"- Also takes the params of: {parents}"


def readme_tasks() -> str:
    """Return the README's table: the tasks of each field, and the annotators around them."""
    rows = []
    for field in FIELDS:
        links = (
            f"[{task}](docs/tasks/{task}.md) (`{name}`)" for its_field, task, name, _ in tasks() if its_field == field
        )
        rows.append((field, ", ".join(links)))
    for group in GROUPS:
        names = [name for name, cls in annotators().items() if group_of(cls) == group]
        if group != "Tasks":
            rows.append((group, ", ".join(f"[{name}](docs/annotators.md#{name.lower()})" for name in names)))
    return table(("field", "tasks and annotators"), rows)


def hub_tasks() -> str:
    """Return the tables of docs/tasks/README.md."""
    sections = []
    for field in FIELDS:
        rows = [
            (f"[{task}]({task}.md)", f"`{name}`", f"`{cls.starter}`" if cls.starter else "none", first_sentence(cls))
            for its_field, task, name, cls in tasks()
            if its_field == field
        ]
        sections.append(f"## {field}\n\n" + table(("task", "annotator", "starter model", "what it does"), rows))
    return "\n".join(sections)


def tasks() -> Iterator[tuple[str, str, str, Any]]:
    """Yield field, task id, name and class of each task."""
    placed = [task for tasks_of_field in FIELDS.values() for task in tasks_of_field]
    if sorted(placed) != sorted(sparktasks.TASKS):
        raise SystemExit(f"FIELDS must name each task of sparktasks.TASKS once: {sorted(sparktasks.TASKS)}")
    for field, tasks_of_field in FIELDS.items():
        for task in tasks_of_field:
            name = sparktasks.TASKS[task]
            yield field, task, name, getattr(sparktasks, name)


def with_table(page: str, made: str) -> str:
    """Put a table between the markers of a page."""
    parts = re.fullmatch(r"(.*<!-- table of tasks[^\n]*-->\n)(.*)(<!-- end of table -->.*)", page, re.DOTALL)
    if parts is None:
        raise SystemExit("a page lacks the markers <!-- table of tasks --> and <!-- end of table -->")
    return f"{parts[1]}{made}{parts[3]}"


def pages() -> dict[Path, str]:
    """Return the text that each page with generated parts is to have."""
    return {
        PAGE: annotators_page(),
        README: with_table(README.read_text(encoding="utf-8"), readme_tasks()),
        HUB: with_table(HUB.read_text(encoding="utf-8"), hub_tasks()),
    }


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(ROOT))
