"""`RowKernel`: what every kernel that answers text by text has in common.

Which annotations have a text at all, which texts are the same, where each answer goes, what becomes of errors.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from sparktasks.errors import DataError
from sparktasks.kernels.columns import Annotation, Annotations, build
from sparktasks.kernels.plan import MODEL_WINDOW
from sparktasks.runtime.batching import distinct


@dataclass(frozen=True, kw_only=True)
class RowKernel(ABC):
    """Answers each annotation of its first column, and writes the annotations that the answer makes.

    A task says what its answers depend on (`items`), how they are computed (`answers`), and what is written of one
    (`annotations`). Annotations with the same item are answered once. An empty text gives nothing, unless
    ``reads_empty``. An annotation without a result stands for an error upstream: it is passed on as an error, so that
    the row does not vanish. With ``fails``, an error that is found here raises `DataError`.
    """

    fails: bool
    reads_empty: ClassVar[bool] = False
    window_rows: ClassVar[int] = MODEL_WINDOW

    @property
    @abstractmethod
    def kind(self) -> str:
        """The annotator type that is written."""

    @abstractmethod
    def answers(self, items: Sequence[Any]) -> Sequence[Any]:
        """Compute the answer to each item; an exception in the place of one is what is wrong with it."""

    @abstractmethod
    def annotations(self, source: Annotations, index: int, item: Any, answer: Any) -> list[Annotation]:
        """Return what is written for annotation ``index`` of the source, whose item has this answer."""

    def items(self, source: Annotations, others: Sequence[pa.Array], usable: Sequence[int]) -> list[Any]:
        """Return, hashable, what the answer to each usable annotation depends on: its text, unless a task says more.

        ``others`` are the further columns; an exception in the place of an item is what is wrong with it.
        """
        return [source.result[index] for index in usable]

    def source(self, columns: Sequence[pa.Array]) -> Annotations:
        """Return the annotations that are answered."""
        return Annotations(columns[0])

    def __call__(self, *columns: pa.Array) -> pa.Array:
        source = self.source(columns)

        def compute(usable: list[int]) -> list[list[Annotation]]:
            items = self.items(source, columns[1:], usable)
            unique, places = distinct([item for item in items if not isinstance(item, Exception)])
            # A batch without any text must not load the model.
            answers = self.answers(unique) if unique else []
            place = iter(places)
            written = []
            for index, item in zip(usable, items, strict=True):
                answer = item if isinstance(item, Exception) else answers[next(place)]
                if isinstance(answer, Exception):
                    written.append([failed(self.kind, source, index, answer)])
                else:
                    written.append(self.annotations(source, index, item, answer))
            return written

        return annotate_each(self.kind, source, compute, self.fails, self.reads_empty)


def annotate_each(
    kind: str,
    source: Annotations,
    compute: Callable[[list[int]], Sequence[Sequence[Annotation]]],
    fails: bool,
    reads_empty: bool = False,
) -> pa.ListArray:
    """Write the annotations that ``compute`` makes for each usable annotation of ``source``, row by row.

    The rules are those of `RowKernel`, for kernels that do not answer one annotation at a time.
    """
    usable = _usable(source.result, reads_empty)
    written: list[Sequence[Annotation]] = [()] * len(source)
    for index, annotations in zip(usable, compute(usable), strict=True):
        written[index] = annotations
        if fails:
            _raise_error(source, index, annotations)
    # Errors from upstream do not raise here, also with ``fails``: whoever wrote them was asked to keep them.
    for index, error in _upstream_errors(kind, source):
        written[index] = [error]
    rows: list[list[Annotation]] = [[] for _ in source.lengths]
    for row, annotations in zip(source.rows.tolist(), written, strict=True):
        rows[row].extend(annotations)
    return build(rows)


def _usable(texts: Sequence[str | None], reads_empty: bool) -> list[int]:
    """Return the places of the texts that are answered."""
    places = []
    for place, text in enumerate(texts):
        if text is None:
            continue
        if text or reads_empty:
            places.append(place)
    return places


def _upstream_errors(kind: str, source: Annotations) -> Iterator[tuple[int, Annotation]]:
    """Yield the index of each source annotation that stands for an error, and the annotation that passes it on."""
    # Most columns have no error, and their metadata need not be read.
    if None not in source.result:
        return
    reasons = source.metadata_value("error")
    for index, text in enumerate(source.result):
        if text is None:
            reason = reasons[index] or "Unknown: no reason was given"
            yield index, fault(kind, source, index, reason)


def _raise_error(source: Annotations, index: int, annotations: Sequence[Annotation]) -> None:
    """Raise `DataError` where one of the annotations made for annotation ``index`` is an error."""
    for annotation in annotations:
        if annotation.error is not None:
            raise fatal(annotation.error, source.result[index])


def fatal(error: str, text: str | None) -> DataError:
    """Return what is raised for an error in a row's data with ``onError='fail'``."""
    reason = error.removeprefix("DataError: ")
    return DataError(f"{reason}. The text: {str(text)[:80]!r}. With onError='keep' the job goes on")


def fault(kind: str, source: Annotations, index: int, reason: str) -> Annotation:
    """Return the annotation that stands for a failure on annotation ``index``: no result, and why in its metadata."""
    metadata = inherited(source, index)
    metadata["error"] = reason
    return Annotation(kind, source.begin[index], source.end[index], None, metadata)


def failed(kind: str, source: Annotations, index: int, error: Exception) -> Annotation:
    """Return the annotation that stands for an error on annotation ``index``."""
    return fault(kind, source, index, f"{type(error).__name__}: {error}")


def inherited(source: Annotations, index: int) -> dict[str, str]:
    """Return the metadata that an annotation made of annotation ``index`` carries on: its sentence."""
    sentence = source.sentence[index]
    return {} if sentence is None else {"sentence": sentence}


NO_TOKENS = DataError("the tokenizer makes nothing of this text")
