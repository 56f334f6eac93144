"""Stages by the names that a job file gives them, and the frame they make of the rows."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

from pyspark.ml import PipelineModel
from pyspark.sql import Column, DataFrame, Observation
from pyspark.sql import functions as F
from pyspark.sql.types import BooleanType, StructField

import sparktasks
from sparktasks.annotators.finishers import Finisher
from sparktasks.errors import JobError, ParamError, did_you_mean, listed
from sparktasks.jobs.faults import FlagFaults
from sparktasks.jobs.spec import Job, StageSection
from sparktasks.kernels.columns import TEXT, Kind
from sparktasks.runtime.bundle import Bundle
from sparktasks.spark.annotator import Annotator, ModelAnnotator
from sparktasks.spark.fusion import Chain
from sparktasks.spark.params import P, declared, param
from sparktasks.spark.types import kind_of_type
from sparktasks.spark.vectorized import quoted

MODEL_KEYS = ("pretrained", "file", "precision")
"""What a stage with a model takes besides its params: the model's source, and the ONNX file in it or its precision."""


LIGHT_RECORDS = 10_000  # Spark's own default


def records_per_batch(section: StageSection) -> int:
    """Return how many rows of an Arrow batch suit a stage: fewer where its model is slow, or reads large cells."""
    cls = getattr(sparktasks, section.name)
    return int(getattr(cls, "records_per_batch", LIGHT_RECORDS))


def has_model(stage: Any) -> bool:
    """Tell whether a stage runs a model."""
    return isinstance(stage, ModelAnnotator) and stage.needs_model()


def check_stage(name: str, params: Mapping[str, Any], where: str) -> None:
    """Raise `JobError` where there is no such annotator, or it does not take these params; opens no model."""
    # One at a time, since looking at all of them would import every task.
    if not _is_annotator(name):
        names = list(filter(_is_annotator, sparktasks.__all__))
        hint = did_you_mean(name, names)
        raise JobError(f"{where}: there is no annotator {name!r}.{hint} Allowed: {listed(names)}")
    cls = getattr(sparktasks, name)
    own_params = dict(params)
    model_keys = sorted(params.keys() & set(MODEL_KEYS))
    for key in model_keys:
        del own_params[key]
    if model_keys and not issubclass(cls, ModelAnnotator):
        raise JobError(f"{where}: {name} has no model, so it takes no {listed(model_keys)}")
    try:
        cls(**own_params)
    except ParamError as error:
        raise JobError(f"{where}: {error}") from None


def _is_annotator(name: str) -> bool:
    if name not in sparktasks.__all__:
        return False
    value = getattr(sparktasks, name)
    return isinstance(value, type) and issubclass(value, Annotator)


def build_stages(job: Job) -> list[Any]:
    """Make the job's stages, models included; a saved pipeline is read through the active session."""
    if job.pipeline is None:
        return [_built(section, job.onError) for section in job.stages]
    stages = _flattened(PipelineModel.load(job.pipeline).stages)
    for stage in stages:
        if job.onError and stage.hasParam("onError"):
            stage.set(stage.getParam("onError"), job.onError)
    return stages


def _built(section: StageSection, on_error: str | None) -> Annotator:
    cls = getattr(sparktasks, section.name)
    params = dict(section.params)
    # What the stage says itself goes before what the job says for all.
    if on_error and "onError" in declared(cls):
        params.setdefault("onError", on_error)
    if issubclass(cls, ModelAnnotator):
        model_stage: Annotator = cls.pretrained(
            section.source,
            file=section.file,
            precision=section.precision or "auto",
            **params,
        )
        return model_stage
    stage: Annotator = cls(**params)
    return stage


def _flattened(stages: Iterable[Any]) -> list[Any]:
    """Return the stages of a pipeline, with those of pipelines in it in their places."""
    flat: list[Any] = []
    for stage in stages:
        flat.extend(_flattened(stage.stages) if hasattr(stage, "stages") else [stage])
    return flat


@dataclass(frozen=True)
class Model:
    """A model that a job uses: the name by which the user knows it, the annotator's class, and the device asked for."""

    name: str
    annotator: str
    bundle: Bundle
    device: str


def models_of(job: Job, stages: Sequence[Any]) -> list[Model]:
    """Return the models of a job's stages."""
    models = []
    for index, stage in enumerate(stages):
        if not has_model(stage):
            continue
        source = job.pipeline or job.stages[index].source
        model = Model(
            name=source or stage.starter or stage.uid,
            annotator=type(stage).__name__,
            bundle=stage.getBundle(),
            device=stage.getOrDefault(stage.device),
        )
        models.append(model)
    return models


@dataclass(frozen=True)
class Annotated:
    """What the stages make of a frame: the columns to write, and the counts that come with writing them."""

    frame: DataFrame
    observation: Observation
    knows_faults: bool


def annotated(source: DataFrame, stages: Sequence[Any], columns: Sequence[str] | None) -> Annotated:
    """Run the stages over a frame, and count its rows and the rows with errors while it is written."""
    frame = source
    flags: list[str] = []
    for stage in stages:
        if isinstance(stage, Finisher) and stage.getOrDefault(stage.cleanAnnotations):
            # What has errors is about to be dropped.
            flags.append(f"sparktasks_fault_{uuid.uuid4().hex[:12]}")
            frame = _fault_flag(stage, flags[-1]).transform(frame)
        frame = stage.transform(frame)
    tests = list(map(F.col, flags))
    for field in frame.schema.fields:
        kind = kind_of_type(field.dataType)
        if kind is not None:
            tests.append(has_fault(quoted(field.name), kind))
    rows = F.count(F.lit(1)).alias("rows")
    faults = F.count(F.when(any_of(tests), True)).alias("faults")
    observation = Observation()
    observed = frame.observe(observation, rows, faults).drop(*flags)
    if columns:
        observed = observed.selectExpr(*columns)
    return Annotated(observed, observation, knows_faults=bool(tests))


def any_of(tests: Iterable[Column]) -> Column:
    """Return the condition that at least one of some conditions holds."""
    return reduce(Column.__or__, tests, F.lit(False))


def has_fault(column: Column, kind: Kind) -> Column:
    """Return the condition that a cell holds an annotation that stands for an error, as `FlatColumn.faults` tells in
    Arrow."""
    if kind is TEXT:
        test = F.exists(column, lambda annotation: annotation["result"].isNull())
    else:
        test = F.exists(column, lambda annotation: annotation["metadata"]["error"].isNotNull())
    return F.coalesce(test, F.lit(False))


def _fault_flag(finisher: Finisher, column: str) -> FaultFlag:
    """Return the stage that looks for errors in what a `Finisher` reads; mistakes in its params go by its name."""
    stage = FaultFlag(inputCols=finisher.getOrDefault(finisher.inputCols), outputCol=column)
    stage._resetUid(finisher.uid)
    return stage


class FaultFlag(Annotator):
    """Tells for each row whether one of its annotations stands for an error.

    It runs in the same UDF as the stages around it, so that of the annotations it looks at only this one bit leaves the
    Python worker.
    """

    inputCols: P[list[str]] = param("names of the annotation columns to read", default=["document"])
    outputCol: P[str] = param("name of the boolean column to write", default="fault")

    def extend(self, chain: Chain) -> Chain:
        """Append one kernel."""
        columns = [chain.find(name, self.uid) for name in self.getOrDefault(self.inputCols)]
        field = StructField(self.getOrDefault(self.outputCol), BooleanType())
        return chain.add(FlagFaults(), columns, field, self.uid)
