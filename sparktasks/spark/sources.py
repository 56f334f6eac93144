"""Where models come from: starters, folders, URIs that Spark reads, the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import product
from pathlib import Path

from sparktasks.errors import BundleError, MissingDependency, did_you_mean, listed
from sparktasks.runtime.layouts import AUTO, MODEL_FOLDERS, Precision, graph_files

STARTERS = Path(__file__).parent.parent / "starter"
_URI = re.compile(r"[A-Za-z][\w+.-]+:/|(dbfs|hdfs|s3a?|abfss?|gs):")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
_SMALL_FILES = ["*.json", "*.txt", "*.jinja", "*.model", "*.spm", "LICENSE*", "README.md"]
_MODULE_WEIGHTS = ["[0-9]_Dense/*.safetensors", "[0-9]_LayerNorm/*.safetensors"]  # of sentence-transformers


def starter_names() -> list[str]:
    """Name the bundles that come with the package."""
    return sorted(path.name for path in STARTERS.iterdir() if (path / "config.json").is_file())


def find_folder(source: str | Path | None, starter: str | None, who: str, precision: Precision = AUTO) -> Path:
    """Return the local folder that ``source`` means: a path, a starter's name, a URI or a hub id; None is ``starter``.

    From the hub only the ONNX files of the ``precision`` are fetched.
    """
    if source is None:
        if starter is None:
            raise BundleError(f"{who} has no starter bundle: give a folder, a URI or a hub id")
        source = starter
    name = str(source)
    # A folder goes before a starter or a hub id of the same name: the user sees it.
    if Path(name).expanduser().is_dir():
        return Path(name).expanduser()
    if name in starter_names():
        return STARTERS / name
    if _URI.match(name):
        from sparktasks.spark.storage import fetch_folder

        return fetch_folder(name)
    if isinstance(source, str) and _HUB_ID.fullmatch(name):
        return _from_hub(name, precision)
    raise BundleError(
        f"{who}: there is no folder {name!r}, and no starter bundle of that name.{did_you_mean(name, starter_names())} "
        f"Starters: {listed(starter_names())}"
    )


def _from_hub(name: str, precision: Precision) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise MissingDependency(
            "huggingface_hub", f"loading {name!r} (no such folder here, so a hub id)", "hub"
        ) from error
    repository, _, revision = name.partition("@")

    def download(files: Iterable[str]) -> Path:
        patterns = [*_SMALL_FILES, *_MODULE_WEIGHTS]
        for file in files:
            # A large graph has its weights in files beside it: model.onnx_data, model.onnx_data_1.
            patterns += [f"{file}*", f"onnx/{file}*"]
        try:
            return Path(snapshot_download(repository, revision=revision or None, allow_patterns=patterns))
        except Exception as error:
            raise BundleError(
                f"there is no folder {name!r} here, and the hub did not give it: {type(error).__name__}: {error}"
            ) from error

    # A repository often has ten precisions of one model, so that everything is fetched last.
    for main, beside in graph_files(precision):
        folder = download([*main, *beside])
        if any((folder / place / graph).is_file() for place, graph in product(MODEL_FOLDERS, main)):
            return folder
    folder = download(["*.onnx"])
    if not any(folder.rglob("*.onnx")):
        raise BundleError(
            f"{name} has no ONNX file. Make a folder with one with: sparktasks export {name} FOLDER "
            "(it needs: pip install 'sparktasks[export]')"
        )
    return folder
