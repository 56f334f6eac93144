"""What `sparktasks tasks` and `sparktasks inspect` print."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import sparktasks
from sparktasks.errors import SparkTasksError
from sparktasks.runtime.bundle import Bundle, open_bundle
from sparktasks.runtime.graph import Port
from sparktasks.spark.annotator import ModelAnnotator
from sparktasks.spark.sources import find_folder

_LABELS_SHOWN = 20


def task_lines() -> list[str]:
    """Return the table of tasks: id, class, starter bundle, and what the class does."""
    rows = [("task", "annotator", "starter", "what it does")]
    for task, cls in task_classes().items():
        rows.append((task, cls.__name__, cls.starter or "-", first_sentence(cls)))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return ["  ".join([*(cell.ljust(width) for cell, width in zip(row[:3], widths, strict=True)), row[3]]) for row in rows]


def task_classes() -> dict[str, type[ModelAnnotator]]:
    """Return the class of each task."""
    return {task: getattr(sparktasks, name) for task, name in sparktasks.TASKS.items()}


def first_sentence(cls: type) -> str:
    """Return the first sentence of a class's docstring, on one line.

    >>> first_sentence(ModelAnnotator)
    'A column annotator with a model: a bundle that each executor process opens once.'
    """
    paragraph = (inspect.getdoc(cls) or "").split("\n\n")[0]
    text = " ".join(paragraph.split()).replace("``", "")
    return re.split(r"(?<=\.)\s+(?=[A-Z])", text)[0]


def bundle_lines(source: str, file: str | None = None) -> list[str]:
    """Describe a bundle: a starter's name, a folder, a URI or a hub id; ``file`` names its ONNX file."""
    bundle = open_bundle(find_folder(source, None, "sparktasks inspect"), file)
    pairs = [
        ("bundle", str(bundle.folder)),
        ("kind", _kind(bundle)),
        ("graph", f"{bundle.model}, opset {bundle.graph.opset}"),
        *_ports("input", bundle.graph.inputs),
        *_ports("output", bundle.graph.outputs),
        ("labels", _labels(bundle)),
        ("max length", "not limited" if bundle.max_length is None else f"{bundle.max_length} tokens"),
        *_sizes(bundle),
        ("sha256", bundle.hash),
        *_takers(bundle),
    ]
    return [f"{name:<12}{value}" for name, value in pairs]


def _kind(bundle: Bundle) -> str:
    names = [str(bundle.config.get("model_type", "unknown")), *bundle.config.get("architectures", ())]
    return ", ".join(names)


def _ports(kind: str, ports: Sequence[Port]) -> Iterator[tuple[str, str]]:
    for port in ports:
        yield kind, f"{port.name}: {port.dtype} ({', '.join(map(str, port.shape))})"


def _labels(bundle: Bundle) -> str:
    if not bundle.config.get("id2label") and not bundle.config.get("num_labels"):
        return "none named"
    shown = ", ".join(bundle.labels[:_LABELS_SHOWN])
    return f"{len(bundle.labels)}: {shown}{', ...' if len(bundle.labels) > _LABELS_SHOWN else ''}"


def _sizes(bundle: Bundle) -> Iterator[tuple[str, str]]:
    yield "size", f"{bundle.size / 1e6:,.2f} MB in {len(bundle.files)} files"
    for name in bundle.files:
        yield "", f"{name} {Path(bundle.folder, name).stat().st_size:,}"


def _takers(bundle: Bundle) -> Iterator[tuple[str, str]]:
    """Ask each task's class whether it takes the bundle, and why not."""
    for cls in task_classes().values():
        try:
            cls().check_bundle(bundle)
            yield "fits", cls.__name__
        except SparkTasksError as error:
            yield "fits not", f"{cls.__name__}: {error}"
