"""What `sparktasks tasks`, `inspect`, `optimize` and `cache` print."""

from __future__ import annotations

import inspect
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import sparktasks
from sparktasks.errors import BundleError, ParamError, SparkTasksError, listed
from sparktasks.runtime.accuracy import level_for
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
    columns = zip(*rows, strict=True)
    widths = [max(map(len, column)) for column in columns]
    lines = []
    for row in rows:
        cells = map(str.ljust, row, widths)
        lines.append("  ".join(cells).rstrip())
    return lines


def task_classes() -> dict[str, type[ModelAnnotator]]:
    """Return the class of each task."""
    return {task: getattr(sparktasks, name) for task, name in sparktasks.TASKS.items()}


def first_sentence(cls: type) -> str:
    """Return the first sentence of a class's docstring, on one line.

    >>> first_sentence(ModelAnnotator)
    'A column annotator with a model: a bundle that each executor process opens once.'
    """
    docstring = inspect.getdoc(cls) or ""
    paragraph = " ".join(docstring.partition("\n\n")[0].split())
    sentences = re.split(r"(?<=\.)\s+(?=[A-Z])", paragraph.replace("``", ""))
    return sentences[0]


def bundle_lines(source: str, file: str | None = None) -> list[str]:
    """Describe a bundle: a starter's name, a folder, a URI or a hub id; ``file`` names its ONNX file."""
    folder = find_folder(source, None, "sparktasks inspect")
    bundle = open_bundle(folder, file)
    model_type = str(bundle.config.get("model_type", "unknown"))
    architectures = bundle.config.get("architectures", ())
    max_length = f"{bundle.max_length} tokens" if bundle.max_length else "not limited"
    megabytes = bundle.size / 1e6
    pairs = [
        ("bundle", str(bundle.folder)),
        ("kind", ", ".join([model_type, *architectures])),
        ("graph", f"{bundle.model}, opset {bundle.graph.opset}"),
        *_ports("input", bundle.graph.inputs),
        *_ports("output", bundle.graph.outputs),
        *_block_products(bundle),
        ("labels", _labels(bundle)),
        ("max length", max_length),
        *_padding(bundle),
        ("size", f"{megabytes:,.2f} MB in {len(bundle.files)} files"),
    ]
    for name in bundle.files:
        bytes_of_file = Path(bundle.folder, name).stat().st_size
        pairs.append(("", f"{name} {bytes_of_file:,}"))
    pairs.append(("sha256", bundle.hash))
    pairs.extend(_takers(bundle))
    return [f"{name:<12}{value}" for name, value in pairs]


def _ports(kind: str, ports: Sequence[Port]) -> Iterator[tuple[str, str]]:
    for port in ports:
        shape = ", ".join(map(str, port.shape))
        yield kind, f"{port.name}: {port.dtype} ({shape})"


def _block_products(bundle: Bundle) -> Iterator[tuple[str, str]]:
    """Tell how products by weights in blocks are computed, of each graph that has some."""
    for name, graph in bundle.graphs.items():
        machine_level = level_for(graph)
        when_open = f"left open, set to {machine_level} on CPUs" if machine_level else "left open"
        for product in sorted(graph.block_products):
            level = str(product.accuracy_level or when_open)
            blocks = f"{product.bits} bits in blocks of {product.block_size}"
            yield "weights", f"{name}: {blocks}, accuracy level {level}"


def _labels(bundle: Bundle) -> str:
    names = bundle.config.get("id2label") or bundle.config.get("num_labels")
    if not names:
        return "none named"
    try:
        labels = bundle.labels
    except BundleError as error:
        # The folder can be described all the same.
        return str(error)
    shown = ", ".join(labels[:_LABELS_SHOWN])
    if len(labels) > _LABELS_SHOWN:
        shown += ", ..."
    return f"{len(labels)}: {shown}"


def _padding(bundle: Bundle) -> Iterator[tuple[str, str]]:
    """Run a text encoder on samples and say whether padding changes its answers."""
    try:
        check_text_encoder(bundle)
    except BundleError:
        # A generator, or a model of something else than text.
        return
    lengths = Lengths(bundle.max_length)
    model = TextModel(bundle, lengths, batch_tokens=512, device="cpu")
    yield "padding", str(model.padding(bundle.logits.name))


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
    texts_file: str | None,
    precisions: Sequence[str],
) -> list[str]:
    """Make forms of a bundle, each in a folder of its own, measure them, and say what came of it.

    ``texts_file`` has one text a line to measure them on; without it nothing is measured. With several forms the
    folders are ``out`` with the precision added.
    """
    if not precisions:
        options = listed(map("--{}".format, FORMS))
        raise ParamError(f"no precision is named: give at least one of {options}")
    bundle = open_bundle(find_folder(source, None, "sparktasks optimize"), file)
    texts = _read_texts(texts_file) if texts_file else []
    folders = _form_folders(bundle, out, precisions)
    try:
        return _make_forms(bundle, folders, texts)
    except BaseException:
        # Ctrl-C, too, leaves no half of a model behind.
        for folder in folders.values():
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _form_folders(bundle: Bundle, out: str | None, precisions: Sequence[str]) -> dict[str, Path]:
    """Name the folder of each form; `BundleError` where one of them already exists."""
    prefix = out or bundle.folder.name
    folders = {precision: Path(f"{prefix}-{precision}") for precision in precisions}
    # Where one form is made, its folder is the one that the user named.
    if out and len(folders) == 1:
        folders = dict.fromkeys(folders, Path(out))
    existing = list(filter(Path.exists, folders.values()))
    if existing:
        raise BundleError(f"{existing[0]} already exists: name another folder with --out")
    return folders


def _make_forms(bundle: Bundle, folders: dict[str, Path], texts: list[str]) -> list[str]:
    """Write the forms with their cards, and return what there is to say of them."""
    forms = {precision: quantize(bundle, folder, precision) for precision, folder in folders.items()}
    results: dict[str, Agreement] = {}
    advice = ""
    closing = "not measured: give --texts FILE"
    if texts:
        results = agreements(bundle, forms, texts)
        advice = closing = recommendation(results)
    lines = []
    for precision, form in forms.items():
        result = results.get(precision)
        write_card(form, bundle, precision, result, advice)
        size_before = bundle.all_weight_bytes / 1e6
        size_after = form.all_weight_bytes / 1e6
        lines.append(f"{form.model_path}: {size_before:,.1f} MB -> {size_after:,.1f} MB")
        if result is not None:
            lines += map("  {}".format, result.lines())
        if precision == "int8" and generates(bundle):
            lines.append(f"  Warning: {LOSES_TOKENS}")
    return [*lines, closing]


def _read_texts(path: str) -> list[str]:
    if not Path(path).is_file():
        raise ParamError(f"there is no file of texts {path!r}")
    try:
        content = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ParamError(f"{path!r} is not a text file in UTF-8: {error}") from error
    lines = map(str.strip, content.splitlines())
    texts = list(filter(None, lines))
    if not texts:
        raise ParamError(f"{path!r} has no texts in it: one a line is expected")
    return texts


def cache_lines(what: str) -> list[str]:
    """Do what ``what`` says with the models kept on this machine, and return the lines to print.

    ``list`` them, ``verify`` them (read them whole and remove damaged ones), or ``clear`` what is not in use.
    """
    store = Store()
    if what == "list":
        return _cache_entries(store)
    if what == "verify":
        folders, kept = store.damaged(), "damaged, but in use"
    else:
        folders, kept = store.folders(), "in use, kept"
    lines = []
    for folder in folders:
        outcome = "removed" if store.remove(folder) else kept
        lines.append(f"{folder.parent.name}/{folder.name}: {outcome}")
    return [f"{store.root}: {len(store.folders())} left", *lines]


def _cache_entries(store: Store) -> list[str]:
    total = 0
    lines = []
    for folder in sorted(store.folders()):
        size = store.size(folder)
        total += size
        lines.append(f"{size / 1e6:>12,.1f} MB  {folder.parent.name}/{folder.name}")
    return [f"{store.root}: {total / 1e6:,.1f} MB of at most {store.limit / 1e6:,.0f} MB", *lines]
