"""LocalPipeline: the same kernels without Spark, for single texts and small lists; no JVM is started."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyspark.ml import Pipeline

from sparktasks.errors import ColumnError, ParamError, listed
from sparktasks.kernels.columns import TEXT, Annotations
from sparktasks.kernels.json_values import as_python
from sparktasks.kernels.plan import execute
from sparktasks.kernels.values import as_sequence, typed_array
from sparktasks.spark.annotator import Annotator
from sparktasks.spark.fusion import Chain
from sparktasks.spark.inputs import Visible, Wanted
from sparktasks.spark.persist import load_stages
from sparktasks.spark.storage import local_path
from sparktasks.spark.types import is_annotations, kind_of_type


class LocalPipeline:
    """Runs the stages of a PipelineModel, or a list of stages, in this process.

    >>> from sparktasks import DocumentAssembler
    >>> LocalPipeline([DocumentAssembler()]).annotate("Book me a table")
    {'document': ['Book me a table']}
    """

    def __init__(self, model: Any) -> None:
        if isinstance(model, Pipeline):
            raise ParamError(
                f"LocalPipeline: {model.uid} is a Pipeline that was not fitted. Give pipeline.fit(df), or its list "
                "of stages"
            )
        stages = [model] if isinstance(model, Annotator) else getattr(model, "stages", model)
        # The chain starts without columns: what its stages ask for first are the inputs of the pipeline.
        chain: Chain = _LocalChain(None, ())
        for stage in _flattened(stages):
            chain = stage.extend(chain)
        self._plan, self._outputs = chain.plan()
        self._inputs = chain.inputs
        self._names = list(dict.fromkeys(column.name for column in chain.inputs))

    @classmethod
    def load(cls, path: str | Path) -> LocalPipeline:
        """Load a saved PipelineModel or stage from a folder of this machine."""
        return cls(load_stages(local_path(str(path)) or Path(path)))

    def annotate(self, data: Any) -> Any:
        """Return {column: [results]} for one input, or a list of them for several: a list, a tuple, an array, a
        Series, a generator. An input is a text, or a dict where the pipeline reads several columns."""
        return self._answers(data, _results)

    def fullAnnotate(self, data: Any) -> Any:
        """Return {column: [Annotation]} for one input, or a list of them for several."""
        return self._answers(data, lambda annotations: annotations)

    def _answers(self, data: Any, view: Callable[[Any], Any]) -> Any:
        """Run one input, or several; ``view`` makes what the user gets of the annotations of a cell."""
        items = as_sequence(data)
        if items is None:
            return self._answers([data], view)[0]
        answers = []
        for cells in self._run([self._row(item) for item in items]):
            answer = {}
            for column, cell in zip(self._outputs, cells, strict=True):
                # A finisher's columns hold plain values, of which there is no view.
                answer[column.name] = view(cell) if is_annotations(column.dataType) else cell
            answers.append(answer)
        return answers

    def _row(self, item: Any) -> Mapping[str, Any]:
        """Return one input as a value for each column that is read."""
        if not isinstance(item, Mapping):
            if len(self._names) == 1:
                return {self._names[0]: item}
            raise ParamError(
                f"LocalPipeline: this pipeline reads {listed(self._names)}; give a dict with these keys, not "
                f"{type(item).__name__}"
            )
        if missing := set(self._names) - set(item):
            raise ColumnError(
                f"LocalPipeline: no value for {listed(sorted(missing))}; this pipeline reads {listed(self._names)}"
            )
        return item

    def _run(self, rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Any, ...]]:
        """Yield the cells of each row, one for each output column."""
        columns = []
        for column in self._inputs:
            values = [row[column.name] for row in rows]
            types = column.wanted.local if column.wanted is not None else ()
            columns.append(typed_array(values, types, f"LocalPipeline: the column {column.name!r}"))
        if not rows:
            return
        for window in execute(self._plan, [columns]):
            cells = [_cells(array, column) for array, column in zip(window, self._outputs, strict=True)]
            yield from zip(*cells, strict=True)


class _LocalChain(Chain):
    """A chain without a frame: a column that no stage made is an input of the pipeline."""

    def find(self, name: str, who: str, wanted: Wanted | None = None) -> Visible:
        if any(column.name == name for column in self.visible):
            return super().find(name, who, wanted)
        return Visible(name, None, {}, wanted=wanted)


def _results(annotations: Iterable[Any]) -> list[Any]:
    results = []
    for annotation in annotations:
        # Images and sound come as dicts; only texts have a class.
        results.append(annotation["result"] if isinstance(annotation, dict) else annotation.result)
    return results


def _flattened(stages: Iterable[Any]) -> list[Annotator]:
    """Return the stages, those of pipelines inside a pipeline among them."""
    flat: list[Annotator] = []
    for stage in stages:
        if hasattr(stage, "stages"):
            flat.extend(_flattened(stage.stages))
        elif isinstance(stage, Annotator):
            flat.append(stage)
        else:
            raise ParamError(
                f"LocalPipeline: the stage {getattr(stage, 'uid', stage)!r} is a {type(stage).__name__}, which needs "
                "Spark. Give a list of the sparktasks stages instead"
            )
    return flat


def _cells(array: pa.Array, column: Visible) -> list[Any]:
    """Return a column's cells: lists of `Annotation`, of dicts where it holds images or sound, or plain values."""
    if kind_of_type(column.dataType) is TEXT:
        return Annotations(array).by_row()
    return [as_python(value, array.type) for value in array.to_pylist()]
