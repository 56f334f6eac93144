"""Annotators: Spark ML Transformers that append a kernel to the chain their DataFrame carries."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pyspark.ml import Transformer
from pyspark.ml.util import MLReadable, MLWritable
from pyspark.sql import DataFrame

from sparktasks.errors import ColumnError, ParamError, listed
from sparktasks.kernels.parcels import BundleRef, FolderRef
from sparktasks.kernels.plan import Kernel
from sparktasks.runtime.bundle import Bundle, open_bundle
from sparktasks.runtime.devices import ALLOWED, is_device
from sparktasks.runtime.folders import Folder, open_folder
from sparktasks.runtime.layouts import AUTO, Precision
from sparktasks.runtime.operators import check_operators
from sparktasks.runtime.session import RUN_SECONDS
from sparktasks.spark.fusion import Chain, chain_of
from sparktasks.spark.inputs import Visible, Wanted, annotations_of, misfit
from sparktasks.spark.params import Check, Declared, P, above, one_of, param
from sparktasks.spark.persist import StageReader, StageWriter
from sparktasks.spark.sources import find_folder
from sparktasks.spark.storage import hold_files
from sparktasks.spark.types import annotation_field

if TYPE_CHECKING:
    from typing_extensions import Self


class Annotator(Transformer, Declared, MLReadable["Annotator"], MLWritable):
    """A stage that adds columns; consecutive ones run as one UDF."""

    @abstractmethod
    def extend(self, chain: Chain) -> Chain:
        """Check this stage's inputs against the chain's columns and append its kernels."""

    def check_distinct(self, outputs: Sequence[str]) -> None:
        """Raise `ParamError` where one stage would write two columns of one name."""
        # Most sessions take names that differ in case for the same.
        if len({name.lower() for name in outputs}) < len(outputs):
            raise ParamError(
                f"{self.uid}: it would write columns of the same name: {listed(outputs)}. Give each its own"
            )

    def _transform(self, dataset: DataFrame) -> DataFrame:
        return self.extend(chain_of(dataset)).frame()

    def write(self) -> StageWriter:
        """Return a writer: ``stage.write().overwrite().save(path)``."""
        return StageWriter(self)

    @classmethod
    def read(cls) -> StageReader:
        """Return a reader: ``Class.read().load(path)``."""
        return StageReader(cls)


Kinds = str | tuple[str, ...]
"""An annotator type that a stage reads, or several of which one is expected."""


class ColumnAnnotator(Annotator):
    """An annotator that reads annotation columns, in the order of ``reads``, and writes one."""

    reads: ClassVar[tuple[Kinds, ...]]
    optional: ClassVar[tuple[Kinds, ...]] = ()

    inputCols: P[list[str]] = param(
        "names of the annotation columns to read; a plain string is a list of one", default=["document"]
    )
    outputCol: P[str] = param("name of the column to write", default="output")
    onError: P[str] = param(
        "what a fault in one row's data does: keep (an annotation with no result and metadata.error) or fail (the job)",
        default="keep",
        check=one_of("keep", "fail"),
    )

    @property
    @abstractmethod
    def writes(self) -> str:
        """The annotator type of the output column; it may depend on params."""

    @abstractmethod
    def kernel(self) -> Kernel:
        """Return the executor half, with this stage's params as they are now."""

    def fails(self) -> bool:
        """Tell whether a fault in one row's data is to fail the job."""
        return bool(self.getOrDefault(self.onError) == "fail")

    def extend(self, chain: Chain) -> Chain:
        columns = self.columns(chain)
        output = annotation_field(self.getOrDefault(self.outputCol), self.writes)
        return chain.add(self.kernel(), columns, output, self.uid)

    def columns(self, chain: Chain) -> list[Visible]:
        """Find the input columns and bring them into the order of ``reads``, by their types."""
        names = self.getOrDefault(self.inputCols)
        all_kinds = self.reads + self.optional
        if not len(self.reads) <= len(names) <= len(all_kinds):
            raise ColumnError(f"{self.uid}: inputCols={names!r}, but it reads {_spelled(self.reads, self.optional)}")
        expected = [annotations_of(*_as_tuple(kinds)) for kinds in all_kinds[: len(names)]]
        columns = [chain.find(name, self.uid) for name in names]
        # Users need not know the order: types tell which column is which. Of two of one type the first stays the first.
        for order in permutations(columns):
            if all(map(Visible.fits, order, expected)):
                self._warn_of_lost_types(order, expected)
                return [chain.find(column.name, self.uid, read) for column, read in zip(order, expected, strict=True)]
        # The error names the first column that is wrong where it stands; each may fit somewhere, but not all together.
        for column, read in zip(columns, expected, strict=True):
            if not column.fits(read):
                raise misfit(self.uid, column, read, chain.visible)
        raise misfit(self.uid, columns[-1], expected[-1], chain.visible)

    def _warn_of_lost_types(self, columns: Sequence[Visible], expected: Sequence[Wanted]) -> None:
        for column, read in zip(columns, expected, strict=True):
            # Inputs of a LocalPipeline never had one.
            if column.dataType is not None and "annotatorType" not in column.metadata:
                warnings.warn(
                    f"{self.uid}: the column {column.name!r} lost its annotator type; taken for {read.description}",
                    stacklevel=2,
                )


def _as_tuple(kinds: Kinds) -> tuple[str, ...]:
    return (kinds,) if isinstance(kinds, str) else kinds


def _spelled(reads: Sequence[Kinds], optional: Sequence[Kinds]) -> str:
    spelled = "one column of each type: " + ", ".join(" or ".join(_as_tuple(kinds)) for kinds in reads)
    if optional:
        spelled += ", and optionally " + ", ".join(" or ".join(_as_tuple(kinds)) for kinds in optional)
    return spelled


@dataclass(frozen=True)
class _DeviceName(Check):
    def __call__(self, value: Any) -> bool:
        return is_device(value)

    def __str__(self) -> str:
        return f"one of {listed(ALLOWED)}, and a number as in 'cuda:1'"


class FolderAnnotator(ColumnAnnotator):
    """A column annotator whose kernel reads files on the executors: a dictionary, a trie, a trained table, a model."""

    _folder: Folder | None = None

    def setFolder(self, source: str | Path | Folder) -> Self:
        """Use a folder, or one file; raises `BundleError` where there is none."""
        folder = source if isinstance(source, Folder) else open_folder(source)
        # So that the stage can be saved over the folder that it was loaded from.
        hold_files(folder.folder, folder.files, folder)
        # The hash is taken now, while the files are those that were looked at.
        self._folder = folder.sealed()
        return self

    def getFolder(self) -> Folder:
        """Return the folder; `ParamError` where the annotator was made without one."""
        if self._folder is None:
            raise ParamError(f"{self.uid}: it has no files. Give them with setFolder, or load a saved one")
        return self._folder

    def restore(self, place: Path, model: str | None) -> None:
        """Take up the files that were saved with this stage; ``model`` names the graph among them."""
        self.setFolder(place)

    def folder_ref(self) -> FolderRef:
        """Return what kernels carry in the folder's place."""
        return FolderRef.of(self.getFolder())

    def extend(self, chain: Chain) -> Chain:
        return super().extend(chain.needing(self.getFolder()))


class ModelAnnotator(FolderAnnotator):
    """A column annotator with a model: a bundle that each executor process opens once."""

    starter: ClassVar[str | None] = None
    records_per_batch: ClassVar[int] = 1000

    device: P[str] = param(
        "where the model runs: auto (a GPU if there is one and onnxruntime has CUDA, else the CPU), cpu, "
        "cuda, or by number, as in cuda:1",
        default="auto",
        check=_DeviceName(),
    )

    maxRunSeconds: P[float] = param(
        "longest run of a model whose graph has loops, in seconds: one that never ends is an error of its rows",
        default=RUN_SECONDS,
        check=above(0),
    )

    @classmethod
    def pretrained(
        cls, source: str | Path | None = None, *, file: str | None = None, precision: Precision = AUTO, **params: Any
    ) -> Self:
        """Make the annotator with a model.

        ``source`` is a folder, the name of a starter bundle, a URI that Spark reads, or a Hugging Face hub id; None is
        this task's starter. ``precision`` (fp32, fp16, int8: dynamic, int8w: weights only in 8 bits, int4: weights only
        in 4 bits) chooses among the ONNX files in it; auto is ``model.onnx``, else the only one; a mapping gives graphs
        precisions of their own, such as ``{"decoder_model_merged": "int4", "encoder_model": "fp32"}``. ``file`` names a
        file instead.
        Raises `BundleError` where the model does not fit the task.
        """
        stage = cls(**params)
        if file is not None and precision != AUTO:
            raise ParamError(f"{stage.uid}: file={file!r} and precision={precision!r} cannot be combined")
        if source is None and not stage.needs_model():
            return stage
        stage.setBundle(open_bundle(find_folder(source, cls.starter, cls.__name__, precision), file, precision))
        return stage

    def setBundle(self, bundle: Bundle) -> Self:
        """Use an opened bundle; raises `BundleError` where it does not fit the task."""
        self.check_bundle(bundle)
        check_operators(bundle)
        return self.setFolder(bundle)

    def getBundle(self) -> Bundle:
        """Return the bundle; `ParamError` where the annotator was made without one."""
        if not isinstance(self._folder, Bundle):
            name = type(self).__name__
            raise ParamError(f"{self.uid}: it has no model. Make it with {name}.pretrained(...), or load a saved one")
        return self._folder

    def restore(self, place: Path, model: str | None) -> None:
        self.setBundle(open_bundle(place, model))

    def needs_model(self) -> bool:
        """Tell whether this stage, with its params as they are, runs a model."""
        return True

    def check_bundle(self, bundle: Bundle) -> None:
        """Raise `BundleError` where a bundle cannot serve this task; looks at files only."""

    def bundle_ref(self) -> BundleRef:
        """Return what kernels carry in the bundle's place."""
        return BundleRef.of(self.getBundle())

    def getFolder(self) -> Folder:
        return self.getBundle()
