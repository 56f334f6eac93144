"""What `sparktasks tasks`, `inspect`, `optimize` and `cache` print."""

from __future__ import annotations

import inspect
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import sparktasks
from sparktasks.errors import BundleError, ParamError, SparkTasksError, listed
from sparktasks.runtime.agreement import Agreement, agreements, recommendation
from sparktasks.runtime.bundle import Bundle, open_bundle
from sparktasks.runtime.checks import check_text_encoder
from sparktasks.runtime.generation.layout import generates
from sparktasks.runtime.graph import Port
from sparktasks.runtime.quantize import FORMS, LOSES_TOKENS, quantize, write_card
from sparktasks.runtime.store import Store
from sparktasks.runtime.text_model import TextModel
from sparktasks.runtime.tokens import Lengths
from sparktasks.spark.annotator import ModelAnnotator
from sparktasks.spark.sources import find_folder

_LABELS_SHOWN = 20


def task_lines() -> list[str]:
    """Return the table of tasks: id, class, starter bundle, and what the class does."""
    rows = [("task", "annotator", "starter", "what it does")]
    for task, cls in task_classes().items():
        rows.append((task, cls.__name__, cls.starter or "-", first_sentence(cls)))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row[:3], widths, strict=True)), row[3]]) for row in rows
    ]


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
        *_padding(bundle),
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
    try:
        shown = ", ".join(bundle.labels[:_LABELS_SHOWN])
    except BundleError as error:
        return str(error)
    return f"{len(bundle.labels)}: {shown}{', ...' if len(bundle.labels) > _LABELS_SHOWN else ''}"


def _padding(bundle: Bundle) -> Iterator[tuple[str, str]]:
    """Run a text encoder on samples and say whether padding changes its answers."""
    try:
        check_text_encoder(bundle)
    except BundleError:
        return
    model = TextModel(bundle, Lengths(bundle.max_length), batch_tokens=512, device="cpu")
    yield "padding", str(model.padding(bundle.logits.name))


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


def optimized_lines(
    source: str,
    file: str | None,
    out: str | None,
    texts: str | None,
    precisions: Sequence[str],
) -> list[str]:
    """Make forms of a bundle, each in a folder of its own, measure them, and say what came of it.

    ``texts`` names a file with one text a line to measure them on; without it nothing is measured. Of several forms
    the folders are ``out`` with the precision added.
    """
    if not precisions:
        raise ParamError(f"no precision is named: give at least one of {listed(f'--{name}' for name in FORMS)}")
    bundle = open_bundle(find_folder(source, None, "sparktasks optimize"), file)
    lines = _texts(texts) if texts else []
    chosen = list(dict.fromkeys(precisions))
    folders = {precision: _form_folder(bundle, out, precision, len(chosen) > 1) for precision in chosen}
    for folder in folders.values():
        if folder.exists():
            raise BundleError(f"{folder} already exists: name another folder with --out")
    try:
        forms = {precision: quantize(bundle, folder, precision) for precision, folder in folders.items()}
        results = agreements(bundle, forms, lines) if lines else {}
        advice = recommendation(results) if results else ""
        for precision, form in forms.items():
            write_card(form, bundle, precision, results.get(precision), advice)
    except BaseException:
        for folder in folders.values():
            shutil.rmtree(folder, ignore_errors=True)
        raise
    return [*_form_lines(bundle, forms, results), *([advice] if advice else ["not measured: give --texts FILE"])]


def _form_folder(bundle: Bundle, out: str | None, precision: str, is_one_of_several: bool) -> Path:
    if out is None:
        return Path(f"{bundle.folder.name}-{precision}")
    return Path(f"{out}-{precision}" if is_one_of_several else out)


def _form_lines(bundle: Bundle, forms: Mapping[str, Bundle], results: Mapping[str, Agreement]) -> Iterator[str]:
    """Say what was made, and what was measured of it."""
    for precision, form in forms.items():
        yield f"{form.model_path}: {bundle.all_weight_bytes / 1e6:,.1f} MB -> {form.all_weight_bytes / 1e6:,.1f} MB"
        if precision in results:
            yield from (f"  {line}" for line in results[precision].lines())
        if precision == "int8" and generates(bundle):
            yield f"  Warning: {LOSES_TOKENS}"


def _texts(path: str) -> list[str]:
    if not Path(path).is_file():
        raise ParamError(f"there is no file of texts {path!r}")
    try:
        lines = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise ParamError(f"{path!r} is not a text file in UTF-8: {error}") from error
    found = [line for line in lines if line]
    if not found:
        raise ParamError(f"{path!r} has no texts in it: one a line is expected")
    return found


def cache_lines(what: str) -> list[str]:
    """List the models kept on this machine, ``verify`` (read them whole and remove damaged ones) or ``clear`` (remove
    what is not in use)."""
    store = Store()
    if what == "list":
        sizes = {folder: store.size(folder) for folder in store.folders()}
        lines = [
            f"{size / 1e6:>12,.1f} MB  {folder.parent.name}/{folder.name}" for folder, size in sorted(sizes.items())
        ]
        return [f"{store.root}: {sum(sizes.values()) / 1e6:,.1f} MB of at most {store.limit / 1e6:,.0f} MB", *lines]
    chosen = store.damaged() if what == "verify" else store.folders()
    kept = "in use, kept" if what == "clear" else "damaged, but in use"
    lines = [f"{folder.parent.name}/{folder.name}: {'removed' if store.remove(folder) else kept}" for folder in chosen]
    return [f"{store.root}: {len(store.folders())} left", *lines]
