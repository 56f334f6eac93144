"""Which files of a folder make the model that is asked for: its main graph, the graphs beside it, and small files."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain, product
from pathlib import Path
from typing import Any

from sparktasks.errors import BundleError, listed
from sparktasks.runtime import genai
from sparktasks.runtime.folder_files import inside, read_json
from sparktasks.runtime.folders import visible_files
from sparktasks.runtime.graph import Graph
from sparktasks.runtime.layouts import (
    AUTO,
    LAYOUTS,
    MODEL_FOLDERS,
    TEXT_ROLES,
    Precision,
    check_precision,
    companion_suffixes,
    graph_files,
    is_named,
    layouts_for,
    precision_of,
)

EXPORT = "sparktasks export MODEL FOLDER"
"""The command that makes a folder which is taken here."""

# Weights in other formats or precisions than the chosen ones.
_OTHER_WEIGHTS = re.compile(
    r"\.onnx[._]data"
    r"|\.(safetensors|bin|pt|pth|h5|msgpack|ot|gguf|tflite|npz|pb|onnx)$"
)

# Those that `sparktasks optimize` makes, by an option of the same name.
_OPTIMIZED = ("int8", "int8w", "int4")

# The small files that a model needs, and where else their content may stand: slow tokenizers have files of their own.
_NEEDED_FILES = {
    "config.json": ("config.json", "onnx/config.json"),
    "tokenizer.json": ("**/tokenizer*.json", "**/*.model", "**/vocab.*"),
}

# What transformers' own exporter calls its list of graphs.
_MANIFEST = "export.json"


def find_graphs(
    folder: Path,
    model: str | tuple[str, ...] | None = None,
    precision: Precision = AUTO,
    roles: Collection[str] = TEXT_ROLES,
) -> tuple[str, ...]:
    """Return the files of a model's graphs, relative to the folder, the main one first.

    ``model`` names the main graph, or all graphs; without it ``precision`` chooses: by name, or auto, which is the
    plain file, else the only variant there is. Raises `BundleError` where a file is missing or none can be chosen, and
    `ParamError` where the precision is unknown.
    """
    check_precision(precision)
    if isinstance(model, tuple):
        for name in model:
            _check_file(folder, name)
        return model
    main = _find_main(folder, precision) if model is None else model
    _check_file(folder, main)
    return (main, *_find_companions(folder, main, precision, roles))


def _check_file(folder: Path, name: Any) -> None:
    """Raise `BundleError` where there is no such file, or it lies outside of the folder."""
    if not isinstance(name, str) or not (folder / name).is_file():
        raise BundleError(f"{folder} has no {name}. ONNX files there: {listed(onnx_files(folder))}")
    inside(folder, name, str(folder))


def onnx_files(folder: Path) -> list[str]:
    """Return the ONNX files of a folder, wherever they are in it."""
    return [str(path.relative_to(folder)) for path in sorted(folder.rglob("*.onnx"))]


def _find_main(folder: Path, precision: Precision) -> str:
    """Choose the main graph by its precision; `BundleError` where there is none, or it cannot be chosen."""
    manifest = read_json(folder / genai.FILE)
    if precision == AUTO and manifest is not None:
        return genai.decoder_file(folder, manifest)

    main_names = [main_files for main_files, _ in graph_files(precision)]
    for name, place in product(chain.from_iterable(main_names), MODEL_FOLDERS):
        if (folder / place / name).is_file():
            return str(Path(place, name))

    # The precision that is asked for may name other graphs only, and leave the main one open.
    mains = [main for main, _ in layouts_for(precision)]
    main_precisions = {precision_of(precision, main) for main in mains}
    if main_precisions == {AUTO}:
        return _only_variant(folder, mains)
    raise _lacks_precision(folder, precision)


def _lacks_precision(folder: Path, precision: Precision) -> BundleError:
    """Say that a folder has no main graph in a precision, and what makes one."""
    asked = precision if isinstance(precision, str) else dict(precision)
    message = f"{folder} has no ONNX file in {asked}. ONNX files there: {listed(onnx_files(folder))}"
    if asked in _OPTIMIZED:
        message += f". Make one with: sparktasks optimize {folder} --{asked}"
    return BundleError(message)


def _only_variant(folder: Path, mains: Sequence[str]) -> str:
    """Return the file of the first main graph that has any, where it has only one."""
    # A folder with the one file that `sparktasks optimize` made, or that somebody fetched, needs no further words.
    files = onnx_files(folder)
    variants_of_mains = [_variants(files, main) for main in mains]
    variants: list[str] = next(filter(None, variants_of_mains), [])
    if len(variants) == 1:
        return variants[0]
    if not files:
        raise _lacks_model(folder)

    manifest = read_json(folder / _MANIFEST) or {}
    components = list(manifest.get("components") or ())
    if components:
        raise BundleError(
            f"{folder} holds the graphs {listed(components)}, as transformers' own exporter writes models that "
            f"generate: these are not read here. Export the original model with: {EXPORT}"
        )
    raise BundleError(
        f"{folder} has no model.onnx, at its root or in onnx/. ONNX files there: {listed(files)}. "
        f"Name one with pretrained(..., file=...), or export one with: {EXPORT}"
    )


def _variants(files: Sequence[str], graph: str) -> list[str]:
    """Return the files of a graph whose names have a suffix, known or not."""
    variants = []
    for name in files:
        if Path(name).stem.startswith(f"{graph}_"):
            variants.append(name)
    return variants


def _lacks_model(folder: Path) -> BundleError:
    """Name all that a folder without any ONNX file lacks, and what it may be instead."""
    who = str(folder)
    others = sorted(folder.rglob("*.gguf"))
    if others:
        who = f"{folder} holds a GGUF model ({others[0].name}), which llama.cpp runs. It"
    missing = []
    for name, patterns in _NEEDED_FILES.items():
        if not any(chain.from_iterable(map(folder.glob, patterns))):
            missing.append(name)
    missing.append("model.onnx")
    return BundleError(
        f"{who} has no {', no '.join(missing)}, at its root or in onnx/, nor another ONNX file. "
        f"Export the original model with: {EXPORT}"
    )


def _find_companions(folder: Path, main: str, precision: Precision, roles: Collection[str]) -> Iterator[str]:
    """Yield the files of the graphs that run beside a main one."""
    stem = Path(main).stem
    layout = next(filter(stem.startswith, LAYOUTS), None)
    if layout is None:
        return
    main_suffix = stem.removeprefix(layout)
    for role, graph in LAYOUTS[layout].items():
        if role not in roles and not is_named(precision, graph):
            continue
        name = _companion(folder, Path(main).parent, graph, precision, main_suffix)
        if name is not None:
            yield name


def _companion(folder: Path, place: Path, graph: str, precision: Precision, main_suffix: str) -> str | None:
    """Return the file of a graph: in the precision that is asked for it, else in that of the main graph, else the plain
    one, else the only variant there is; None where there is no file of it."""
    for suffix in companion_suffixes(precision, graph, (main_suffix,)):
        name = str(place / f"{graph}{suffix}.onnx")
        if (folder / name).is_file():
            return name

    # The graphs of one model lie in one place: onnx/ may hold other exports than the root.
    beside = []
    for name in onnx_files(folder):
        if Path(name).parent == place:
            beside.append(name)
    if is_named(precision, graph):
        asked = precision_of(precision, graph)
        raise BundleError(f"{folder} has no {graph} in {asked}. ONNX files there: {listed(beside)}")
    variants = _variants(beside, graph)
    if len(variants) > 1:
        raise BundleError(
            f"{folder} has several forms of {graph}: {listed(variants)}. Choose one by its precision, as in "
            f"pretrained(..., precision={{{graph!r}: 'fp16'}})"
        )
    return next(iter(variants), None)


def outside_data(model: str, graph: Graph) -> list[str]:
    """Return the files of a graph's outside data, relative to the folder."""
    place = Path(model).parent
    return [str(place / name) for name in graph.external_files]


def bundle_files(folder: Path, graphs: Mapping[str, Graph]) -> tuple[str, ...]:
    """Return the files that make a bundle: the graphs, their outside data, every small file."""
    visible = set(visible_files(folder))
    chosen = set(graphs)
    for model, graph in graphs.items():
        chosen.update(outside_data(model, graph))
    main = next(iter(graphs))
    chosen.update(_module_weights(folder, main) & visible)
    for name in visible:
        if not _OTHER_WEIGHTS.search(name):
            chosen.add(name)
    return tuple(sorted(chosen))


def _module_weights(folder: Path, model: str) -> set[str]:
    """Name the weights of sentence-transformers' modules that stand behind the graph, such as ``2_Dense``."""
    modules = read_json(find_small(folder, model, "modules.json"))
    if not isinstance(modules, list):
        return set()
    weights = set()
    for module in modules:
        # Whoever runs the modules says what is wrong with them; here they are only listed.
        if isinstance(module, dict):
            weights.add(f"{module.get('path')}/model.safetensors")
    return weights


def find_small(folder: Path, model: str, name: str) -> Path:
    """Return the path of a small file, which may be missing: at the folder's root, else beside the graph."""
    at_root = folder / name
    if at_root.is_file():
        return at_root
    beside = (folder / model).parent / name
    if beside.is_file():
        return beside
    return at_root
