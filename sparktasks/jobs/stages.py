"""Stages by the names that a job file gives them, and the frame they make of the rows."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.ml import PipelineModel
from pyspark.sql import Column, DataFrame, Observation
from pyspark.sql import functions as F
from pyspark.sql.types import BooleanType, StructField

import sparktasks
from sparktasks.annotators.base.finisher import Finisher
from sparktasks.errors import JobError, ParamError, did_you_mean, listed
from sparktasks.runtime.bundle import Bundle
from sparktasks.spark.annotations import Annotations, is_annotations
from sparktasks.spark.annotator import Annotator, ModelAnnotator
from sparktasks.spark.fusion import Chain
from sparktasks.spark.params import P, declared, param
from sparktasks.spark.vectorized import quoted

if TYPE_CHECKING:
    from sparktasks.jobs.spec import Job, StageSection


MODEL_KEYS = ("pretrained", "file", "precision")
"""What a stage with a model takes besides its params: the model's source, and the ONNX file in it or its precision."""


LIGHT_RECORDS = 10_000  # Spark's own default


def annotator_names() -> list[str]:
    """Name the annotators that a job file may use as stages."""
    return [name for name in sparktasks.__all__ if _is_annotator(getattr(sparktasks, name))]


def _is_annotator(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, Annotator)


def records_per_batch(name: str) -> int:
    """Return how many rows of an Arrow batch suit an annotator: those of a model that is slow, or reads large cells,
    are fewer."""
    cls = getattr(sparktasks, name)
    return int(cls.records_per_batch) if issubclass(cls, ModelAnnotator) else LIGHT_RECORDS


def check_stage(name: str, params: Mapping[str, Any], where: str) -> None:
    """Raise `JobError` where there is no such annotator, or it does not take these params; opens no model."""
    if name not in sparktasks.__all__ or not _is_annotator(getattr(sparktasks, name)):
        names = annotator_names()
        raise JobError(f"{where}: there is no annotator {name!r}.{did_you_mean(name, names)} Allowed: {listed(names)}")
    cls = getattr(sparktasks, name)
    own = {param: value for param, value in params.items() if param not in MODEL_KEYS}
    if len(own) < len(params) and not issubclass(cls, ModelAnnotator):
        raise JobError(
            f"{where}: {name} has no model, so it takes no {listed(key for key in MODEL_KEYS if key in params)}"
        )
    try:
        cls(**own)
    except ParamError as error:
        raise JobError(f"{where}: {error}") from None


def build_stages(job: Job) -> list[Any]:
    """Make the job's stages, models included; a saved pipeline is read through the active session."""
    if job.pipeline is None:
        return [_built(section, job.onError) for section in job.stages]
    stages = _flattened(PipelineModel.load(job.pipeline).stages)
    for stage in stages:
        if job.onError is not None and stage.hasParam("onError"):
            stage.set(stage.getParam("onError"), job.onError)
    return stages


def _built(section: StageSection, on_error: str | None) -> Annotator:
    cls = getattr(sparktasks, section.name)
    params = (
        section.params if on_error is None or "onError" not in declared(cls) else {"onError": on_error} | section.params
    )
    made = (
        cls.pretrained(section.source, file=section.file, precision=section.precision or "auto", **params)
        if issubclass(cls, ModelAnnotator)
        else cls(**params)
    )
    assert isinstance(made, Annotator)
    return made


def _flattened(stages: Iterable[Any]) -> list[Any]:
    return [inner for stage in stages for inner in (_flattened(stage.stages) if hasattr(stage, "stages") else [stage])]


@dataclass(frozen=True)
class Model:
    """A model that a job uses: its name as the user knows it, the annotator's class, the bundle, the device asked
    for."""

    name: str
    annotator: str
    bundle: Bundle
    device: str


def models_of(job: Job, stages: Sequence[Any]) -> list[Model]:
    """Return the models of a job's stages."""
    sources = [section.source for section in job.stages] or [job.pipeline] * len(stages)
    pairs = [
        (stage, source)
        for stage, source in zip(stages, sources, strict=True)
        if isinstance(stage, ModelAnnotator) and stage.needs_model()
    ]
    return [
        Model(
            source or stage.starter or stage.uid, type(stage).__name__, stage.getBundle(), stage.getOrDefault("device")
        )
        for stage, source in pairs
    ]


@dataclass(frozen=True)
class Annotated:
    """What the stages make of a frame: the columns to write, and the counts that come with writing them."""

    frame: DataFrame
    observation: Observation
    knows_faults: bool


def annotated(source: DataFrame, stages: Sequence[Any], columns: Sequence[str] | None) -> Annotated:
    """Run the stages over a frame, and count its rows and the rows with errors while it is written."""
    frame, flags = source, []
    for stage in stages:
        if isinstance(stage, Finisher):
            frame, flag = _flagged(frame, stage)
            flags.extend(flag)
        frame = stage.transform(frame)
    tests = [F.col(flag) for flag in flags]
    tests += [has_fault(quoted(field.name)) for field in frame.schema.fields if is_annotations(field.dataType)]
    observation = Observation()
    faulty = reduce(Column.__or__, tests) if tests else F.lit(False)
    observed = frame.observe(
        observation, F.count(F.lit(1)).alias("rows"), F.count(F.when(faulty, True)).alias("faults")
    ).drop(*flags)
    return Annotated(observed.selectExpr(*columns) if columns else observed, observation, bool(tests))


def has_fault(column: Column) -> Column:
    return F.coalesce(F.exists(column, lambda annotation: annotation["result"].isNull()), F.lit(False))


def _flagged(frame: DataFrame, finisher: Finisher) -> tuple[DataFrame, list[str]]:
    """Add a column that says whether a row has errors, in what a `Finisher` is about to drop."""
    wanted = {name.lower() for name in finisher.getOrDefault("inputCols")}
    names = [
        field.name for field in frame.schema.fields if field.name.lower() in wanted and is_annotations(field.dataType)
    ]
    if not names or not finisher.getOrDefault("cleanAnnotations"):
        return frame, []
    flag = f"sparktasks_fault_{uuid.uuid4().hex[:12]}"
    return FaultFlag(inputCols=names, outputCol=flag).transform(frame), [flag]


class FaultFlag(Annotator):
    """Tells for each row whether one of its annotations has no result.

    It runs in the same UDF as the stages around it, so that of the annotations it looks at only this one bit leaves the
    Python worker.
    """

    inputCols: P[list[str]] = param("names of the annotation columns to read", default=["document"])
    outputCol: P[str] = param("name of the boolean column to write", default="fault")

    def extend(self, chain: Chain) -> Chain:
        """Append one kernel."""
        columns = [chain.find(name, self.uid) for name in self.getOrDefault("inputCols")]
        return chain.add(FlagFaults(), columns, StructField(self.getOrDefault("outputCol"), BooleanType()), self.uid)


@dataclass(frozen=True)
class FlagFaults:
    """annotation columns -> whether a row has an annotation without a result."""

    def __call__(self, *columns: pa.Array) -> pa.Array:
        found = np.zeros(len(columns[0]), bool)
        for column in columns:
            source = Annotations(column)
            missing = pc.is_null(source.values("result", pa.string())).to_numpy(zero_copy_only=False)
            found[source.rows[missing]] = True
        return pa.array(found)
