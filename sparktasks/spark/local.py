"""LocalPipeline: the same kernels without Spark, for single texts and small lists; no JVM is started."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyspark.ml import Pipeline

from sparktasks.errors import ColumnError, ParamError, listed
from sparktasks.spark.annotations import Annotation, Annotations, is_annotations
from sparktasks.spark.annotator import Annotator
from sparktasks.spark.fusion import Chain, Visible
from sparktasks.spark.json_types import as_python
from sparktasks.spark.kernels import execute
from sparktasks.spark.persist import load_stages
from sparktasks.spark.storage import local_path


class LocalPipeline:
    """Runs the stages of a PipelineModel, or a list of stages, in this process.

    >>> from sparktasks import DocumentAssembler
    >>> LocalPipeline([DocumentAssembler()]).annotate("Book me a table")
    {'document': ['Book me a table']}
    """

    def __init__(self, model: Any) -> None:
        if isinstance(model, Pipeline):
            raise ParamError(
                f"LocalPipeline: {model.uid} is a Pipeline that was not fitted. Give pipeline.fit(df), or its "
                "list of stages"
            )
        stages = [model] if isinstance(model, Annotator) else getattr(model, "stages", model)
        chain: Chain = _LocalChain(None, ())
        for stage in _flattened(stages):
            chain = stage.extend(chain)
        self._plan, self._outputs = chain.plan()
        self._inputs = [column.name for column in chain.inputs]

    @classmethod
    def load(cls, path: str | Path) -> LocalPipeline:
        """Load a saved PipelineModel or stage from a folder of this machine."""
        return cls(load_stages(local_path(str(path)) or Path(path)))

    def annotate(self, data: Any) -> Any:
        """Return {column: [results]} for one input, or a list of them for a list of inputs."""
        return self._each(data, lambda items: [item.result for item in items])

    def fullAnnotate(self, data: Any) -> Any:
        """Return {column: [Annotation]} for one input, or a list of them for a list of inputs."""
        return self._each(data, lambda items: items)

    def _each(self, data: Any, view: Any) -> Any:
        many = isinstance(data, Sequence) and not isinstance(data, (str, bytes))
        rows = [self._row(item) for item in (data if many else [data])]
        found = [
            {name: view(cell) if _holds_annotations(cell) else cell for name, cell in row.items()}
            for row in self._run(rows)
        ]
        return found if many else found[0]

    def _row(self, item: Any) -> Mapping[str, Any]:
        if not isinstance(item, Mapping):
            if len(self._inputs) != 1:
                raise ParamError(
                    f"LocalPipeline: this pipeline reads {listed(self._inputs)}; give a dict with these keys, "
                    f"not {type(item).__name__}"
                )
            return {self._inputs[0]: item}
        if missing := set(self._inputs) - set(item):
            raise ColumnError(
                f"LocalPipeline: no value for {listed(sorted(missing))}; this pipeline reads {listed(self._inputs)}"
            )
        return dict(item)

    def _run(self, rows: Sequence[Mapping[str, Any]]) -> Iterable[dict[str, list[Any]]]:
        columns = [_array([row[name] for row in rows]) for name in self._inputs]
        for window in execute(self._plan, [columns] if rows else []):
            cells = [_cells(array, column) for array, column in zip(window, self._outputs, strict=True)]
            for row in zip(*cells, strict=True):
                yield {column.name: cell for column, cell in zip(self._outputs, row, strict=True)}


class _LocalChain(Chain):
    """A chain without a frame: a column that no stage made is an input of the pipeline."""

    def find(self, name: str, who: str) -> Visible:
        found = [column for column in self.visible if column.name == name]
        return found[0] if found else Visible(name, None, {})


def _holds_annotations(cell: Any) -> bool:
    return isinstance(cell, list) and bool(cell) and isinstance(cell[0], Annotation)


def _flattened(stages: Iterable[Any]) -> list[Annotator]:
    flat: list[Annotator] = []
    for stage in stages:
        if hasattr(stage, "stages"):
            flat.extend(_flattened(stage.stages))
        elif isinstance(stage, Annotator):
            flat.append(stage)
        else:
            raise ParamError(
                f"LocalPipeline: the stage {getattr(stage, 'uid', stage)!r} is a {type(stage).__name__}, which "
                "needs Spark. "
                "Give a list of the sparktasks stages instead"
            )
    return flat


def _array(values: Sequence[Any]) -> pa.Array:
    try:
        return pa.array(values)
    except UnicodeEncodeError:
        return pa.array([_without_surrogates(value) for value in values])


def _without_surrogates(value: Any) -> Any:
    """Replace lone surrogates, which no UTF-8 text can hold, by U+FFFD, one code point each."""
    if isinstance(value, str):
        return "".join("\ufffd" if "\ud800" <= character <= "\udfff" else character for character in value)
    return [_without_surrogates(item) for item in value] if isinstance(value, (list, tuple)) else value


def _cells(array: pa.Array, column: Visible) -> list[Any]:
    if is_annotations(column.known_type):
        return Annotations(array).by_row()
    return [as_python(value, column.known_type) for value in array.to_pylist()]
