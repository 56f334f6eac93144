"""Annotators: Spark ML Transformers that append a kernel to the chain their DataFrame carries."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa
from pyspark.ml import Transformer
from pyspark.ml.util import MLReadable, MLWritable
from pyspark.sql import DataFrame
from pyspark.sql.types import StructField

from sparktasks.errors import ColumnError, DataError, ParamError, listed
from sparktasks.runtime.bundle import Bundle, open_bundle
from sparktasks.runtime.devices import ALLOWED, is_device
from sparktasks.runtime.operators import check_operators
from sparktasks.runtime.session import RUN_SECONDS
from sparktasks.spark.annotations import ANNOTATIONS, Annotation, Annotations, build, is_annotations
from sparktasks.spark.delivery import BundleRef
from sparktasks.spark.fusion import Chain, Visible, chain_of
from sparktasks.spark.kernels import Kernel
from sparktasks.spark.params import Check, Declared, P, above, one_of, param
from sparktasks.spark.persist import StageReader, StageWriter
from sparktasks.spark.sources import find_folder
from sparktasks.spark.storage import hold_files

if TYPE_CHECKING:
    from typing_extensions import Self


class Annotator(Transformer, Declared, MLReadable["Annotator"], MLWritable):
    """A stage that adds columns; consecutive ones run as one UDF."""

    @abstractmethod
    def extend(self, chain: Chain) -> Chain:
        """Check this stage's inputs against the chain's columns and append its kernels."""

    def check_distinct(self, outputs: Sequence[str]) -> None:
        """Raise `ParamError` where one stage would write two columns of one name."""
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


class ColumnAnnotator(Annotator):
    """An annotator that reads annotation columns, in the order of ``reads``, and writes one."""

    reads: ClassVar[tuple[Kinds, ...]]
    optional: ClassVar[tuple[Kinds, ...]] = ()

    inputCols: P[list[str]] = param(
        "names of the annotation columns to read; a plain string is a list of one", default=["document"]
    )
    outputCol: P[str] = param("name of the column to write", default="output")

    @property
    @abstractmethod
    def writes(self) -> str:
        """The annotator type of the output column; it may depend on params."""

    @abstractmethod
    def kernel(self) -> Kernel:
        """Return the executor half, with this stage's params as they are now."""

    def extend(self, chain: Chain) -> Chain:
        columns = self._arranged(chain)
        output = StructField(self.getOrDefault("outputCol"), ANNOTATIONS, metadata={"annotatorType": self.writes})
        return chain.add(self.kernel(), columns, output, self.uid)

    def _arranged(self, chain: Chain) -> list[Visible]:
        """Find the input columns and bring them into the order of ``reads``, by their types."""
        names, most = self.getOrDefault("inputCols"), len(self.reads) + len(self.optional)
        if not len(self.reads) <= len(names) <= most:
            raise ColumnError(f"{self.uid}: inputCols={names!r}, but it reads {_spelled(self.reads, self.optional)}")
        found = [chain.find(name, self.uid) for name in names]
        wanted = (self.reads + self.optional)[: len(names)]
        for order in permutations(found):
            if all(_fits(column, kinds) for column, kinds in zip(order, wanted, strict=True)):
                self._warn_of_lost_types(order, wanted)
                return list(order)
        raise self._misfit(chain, found, wanted)

    def _misfit(self, chain: Chain, found: Sequence[Visible], wanted: Sequence[Kinds]) -> ColumnError:
        column, kinds = next(
            (pair for pair in zip(found, wanted, strict=True) if not _fits(*pair)), (found[-1], wanted[-1])
        )
        fitting = [other.name for other in chain.visible if _fits(other, kinds)]
        return ColumnError(
            f"{self.uid}: the column {column.name!r} is {_described(column)}, but a column of type "
            f"{_either(kinds)} is wanted. "
            f"Columns that would fit: {listed(fitting)}"
        )

    def _warn_of_lost_types(self, columns: Sequence[Visible], wanted: Sequence[Kinds]) -> None:
        for column, kinds in zip(columns, wanted, strict=True):
            if column.dataType is not None and "annotatorType" not in column.metadata:
                warnings.warn(
                    f"{self.uid}: the column {column.name!r} lost its annotator type; taken for {_either(kinds)}",
                    stacklevel=2,
                )


def _fits(column: Visible, kinds: Kinds) -> bool:
    if column.dataType is None:
        return True
    if not is_annotations(column.dataType):
        return False
    return column.metadata.get("annotatorType", _first(kinds)) in ((kinds,) if isinstance(kinds, str) else kinds)


def _first(kinds: Kinds) -> str:
    return kinds if isinstance(kinds, str) else kinds[0]


def _either(kinds: Kinds) -> str:
    return kinds if isinstance(kinds, str) else " or ".join(kinds)


def _spelled(reads: Sequence[Kinds], optional: Sequence[Kinds]) -> str:
    needed = "one column of each type: " + ", ".join(map(_either, reads))
    return needed + (", and optionally " + ", ".join(map(_either, optional)) if optional else "")


def _described(column: Visible) -> str:
    kind = column.metadata.get("annotatorType")
    return (
        f"of type {kind}"
        if kind
        else f"not an annotation column ({column.dataType.simpleString() if column.dataType else 'unknown'})"
    )


@dataclass(frozen=True)
class _DeviceName(Check):
    def __call__(self, value: Any) -> bool:
        return is_device(value)

    def __str__(self) -> str:
        return f"one of {listed(ALLOWED)}, and a number as in 'cuda:1'"


class ModelAnnotator(ColumnAnnotator):
    """A column annotator with a model: a bundle that each executor process opens once."""

    starter: ClassVar[str | None] = None
    records_per_batch: ClassVar[int] = 1000

    onError: P[str] = param(
        "what a fault in one row's data does: keep (an annotation with no result and metadata.error) or fail (the job)",
        default="keep",
        check=one_of("keep", "fail"),
    )

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

    _bundle: Bundle | None = None

    @classmethod
    def pretrained(
        cls, source: str | Path | None = None, *, file: str | None = None, precision: str = "auto", **params: Any
    ) -> Self:
        """Make the annotator with a model.

        ``source`` is a folder, the name of a starter bundle, a URI that Spark reads, or a Hugging Face hub id; None is
        this task's starter. ``precision`` (fp32, fp16, int8: dynamic, int8w: weights only in 8 bits, int4: weights only
        in 4 bits) chooses among the ONNX files in it; auto is ``model.onnx``, else the only one; ``file`` names one.
        Raises `BundleError` where the model does not fit the task.
        """
        stage = cls(**params)
        if file is not None and precision != "auto":
            raise ParamError(f"{stage.uid}: file={file!r} and precision={precision!r} exclude each other")
        if source is None and not stage.needs_model():
            return stage
        stage.setBundle(open_bundle(find_folder(source, cls.starter, cls.__name__, precision), file, precision))
        return stage

    def setBundle(self, bundle: Bundle) -> Self:
        """Use an opened bundle; raises `BundleError` where it does not fit the task."""
        self.check_bundle(bundle)
        check_operators(bundle)
        hold_files(bundle.folder, bundle.files, bundle)
        self._bundle = bundle.sealed()
        return self

    def getBundle(self) -> Bundle:
        """Return the bundle; `ParamError` where the annotator was made without one."""
        if self._bundle is None:
            name = type(self).__name__
            raise ParamError(f"{self.uid}: it has no model. Make it with {name}.pretrained(...), or load a saved one")
        return self._bundle

    def needs_model(self) -> bool:
        """Tell whether this stage, with its params as they are, runs a model."""
        return True

    def check_bundle(self, bundle: Bundle) -> None:
        """Raise `BundleError` where a bundle cannot serve this task; looks at files only."""

    def fails(self) -> bool:
        """Tell whether a fault in one row's data is to fail the job."""
        return bool(self.getOrDefault("onError") == "fail")

    def bundle_ref(self) -> BundleRef:
        """Return what kernels carry in the bundle's place."""
        return BundleRef.of(self.getBundle())

    def extend(self, chain: Chain) -> Chain:
        return super().extend(chain.needing(self.getBundle()))


NO_TOKENS = "the tokenizer makes nothing of this text"


def annotate_each(
    kind: str,
    source: Annotations,
    compute: Callable[[list[int]], Sequence[Sequence[Annotation]]],
    fails: bool = False,
    empty: bool = False,
) -> pa.ListArray:
    """Write the annotations that ``compute`` makes for each usable annotation of ``source``, row by row.

    Empty texts give nothing, unless ``compute`` takes them (``empty``). An annotation without a result stands for an
    error upstream: it is passed on as an error of type ``kind``, so that the row does not vanish. With ``fails`` an
    error that ``compute`` finds raises `DataError`.
    """
    usable = [index for index, text in enumerate(source.result) if text or (empty and text is not None)]
    made: list[Sequence[Annotation]] = [()] * len(source)
    for index, items in zip(usable, compute(usable), strict=True):
        made[index] = items
        if fails and (error := next((item.error for item in items if item.result is None), None)):
            raise DataError(
                f"{error.removeprefix('DataError: ')}. The text: {str(source.result[index])[:80]!r}. With "
                "onError='keep' the job goes on"
            )
    if None in source.result:
        reasons = source.metadata_value("error")
        for index, text in enumerate(source.result):
            if text is None:
                made[index] = [fault(kind, source, index, reasons[index] or "Unknown: no reason was given")]
    rows: list[list[Annotation]] = [[] for _ in source.lengths]
    for row, items in zip(source.rows, made, strict=True):
        rows[row].extend(items)
    return build(rows)


def fault(kind: str, source: Annotations, index: int, reason: str) -> Annotation:
    """Return the annotation that stands for a failure on annotation ``index``: no result, and the reason in its
    metadata."""
    return Annotation(kind, source.begin[index], source.end[index], None, inherited(source, index) | {"error": reason})


def failed(kind: str, source: Annotations, index: int, error: Exception) -> Annotation:
    """Return the annotation that stands for an error on annotation ``index``."""
    return fault(kind, source, index, f"{type(error).__name__}: {error}")


def inherited(source: Annotations, index: int) -> dict[str, str]:
    """Return the metadata that an annotation made from annotation ``index`` carries on: its sentence."""
    sentence = source.sentence[index]
    return {} if sentence is None else {"sentence": sentence}
