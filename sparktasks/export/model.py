"""Exporting a model: PyTorch weights in, an ONNX folder that was checked out."""

from __future__ import annotations

import logging
import shutil
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sparktasks
from sparktasks.errors import BundleError, MissingDependency, ParamError, SparkTasksError
from sparktasks.export.check import check_answers, check_bundle
from sparktasks.export.exporters import find_exporter
from sparktasks.export.files import load_tokenizer, write_small_files
from sparktasks.export.source import Source, find_source
from sparktasks.export.tasks import Form, choose_task
from sparktasks.runtime.bundle import Bundle, open_bundle

_BUNDLE = "bundle"  # the folder to be, in the scratch folder


@dataclass(frozen=True)
class Exported:
    """A folder that was written, what for, and how it was checked, in words."""

    folder: Path
    source: str
    task: str
    size: int
    checked: str

    def lines(self) -> list[str]:
        """Say it in words."""
        return [
            f"{self.folder}: {self.source} for {self.task}, {self.size / 1e6:,.1f} MB",
            f"checked: {self.checked}",
            f"use: {sparktasks.TASKS[self.task]}.pretrained({str(self.folder)!r})",
        ]


def export_model(model: str, folder: str | Path, task: str | None = None, replace: bool = False) -> Exported:
    """Write a PyTorch model as an ONNX folder, and check that it gives the same answers.

    ``model`` is a hub id (``owner/name``, ``owner/name@revision``) or a folder with PyTorch weights. ``task`` is one of
    ours; without it config.json's architectures tell. ``replace`` allows to replace an earlier export. ``folder``
    appears when all is done, or not at all.

    Raises `MissingDependency` without the extra ``export``, `ParamError` where ``folder`` or ``task`` is not allowed,
    and `BundleError` where the model cannot be exported, or gives other answers than before.
    """
    _require()
    named = Path(folder).expanduser()
    target = named.resolve()
    _check_target(target, replace)
    source = find_source(str(model))
    if target in (source.root, *source.root.parents):
        raise ParamError(f"{named} holds the model that is to be exported: name another folder")
    task, form = choose_task(source, task)
    with _scratch_beside(target) as scratch, _quiet(), _naming(source, scratch, target):
        export = find_exporter(source, form)
        tokenizer = load_tokenizer(source)
        export(source, form, tokenizer, scratch)
        bundle = _assembled(source, form, tokenizer, scratch)
        checked = check_answers(bundle, source, form, tokenizer)
        size = bundle.size
        _put_in_place(bundle.folder, target, scratch)
    return Exported(named, source.name, task, size, checked)


def _require() -> None:
    """Raise `MissingDependency` where a package of the extra is not installed."""
    try:
        import torch  # noqa: F401
        import transformers  # noqa: F401
        from optimum.exporters.onnx import main_export  # noqa: F401  (its import sets the level of Optimum's logger)
    except ImportError as error:
        package = (error.name or "optimum").partition(".")[0]
        raise MissingDependency(package, "exporting a model", "export") from error


def _check_target(target: Path, replace: bool) -> None:
    """Raise `ParamError` where the folder to write may not be written."""
    if not target.exists():
        return
    if not target.is_dir():
        raise ParamError(f"{target} is a file; the name of a folder to write is expected")
    if not any(target.iterdir()):
        return
    if not replace:
        raise ParamError(f"{target} is not empty: name another folder, or replace an earlier export with --force")
    # Whatever else is in a folder that was named by mistake would be lost.
    is_export = (target / "config.json").is_file() and any(target.glob("*.onnx"))
    if not is_export:
        raise ParamError(
            f"{target} is not empty and not an earlier export, which --force replaces: name another folder"
        )


@contextmanager
def _scratch_beside(target: Path) -> Iterator[Path]:
    """Make a folder beside the target, so that what is done there can be renamed; nothing of it stays."""
    made = [parent for parent in target.parents if not parent.exists()]
    scratch = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}"
    scratch.mkdir(parents=True)
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        for parent in made:
            with suppress(OSError):  # it is not empty: the export is in it
                parent.rmdir()


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what the libraries say of traced shapes: the check tries other shapes."""
    loggers = [logging.getLogger(name) for name in ("optimum", "transformers")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _naming(source: Source, scratch: Path, target: Path) -> Iterator[None]:
    """Make what goes wrong in a library a `BundleError` that names the model, and name folders as the user did."""
    try:
        yield
    except SparkTasksError as error:
        error.args = (str(error).replace(str(scratch / _BUNDLE), str(target)),)
        raise
    except Exception as error:  # each library has its own kinds
        raise BundleError(f"{source.name} cannot be exported: {type(error).__name__}: {error}") from error


def _assembled(source: Source, form: Form, tokenizer: Any, scratch: Path) -> Bundle:
    """Put the graphs that were written into a folder with all that they need, and open it."""
    folder = scratch / _BUNDLE
    folder.mkdir()
    for path in scratch.glob("*.onnx*"):
        path.chmod(folder.stat().st_mode & 0o666)  # onnx writes weights beside a graph for their owner only
        path.rename(folder / path.name)
    write_small_files(source, tokenizer, folder)
    bundle = open_bundle(folder)
    check_bundle(bundle, form)
    for path in folder.glob("*.onnx*"):
        if path.name not in bundle.files:  # the two graphs that a merged decoder was made of
            path.unlink()
    return bundle


def _put_in_place(folder: Path, target: Path, scratch: Path) -> None:
    """Rename a folder that is done to its place, and what is there now away from it."""
    if not target.exists():
        folder.rename(target)
        return
    before = target.rename(scratch / "replaced")
    try:
        folder.rename(target)
    except OSError:
        before.rename(target)
        raise
