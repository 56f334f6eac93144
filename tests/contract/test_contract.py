"""What every annotator promises."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from pyspark.ml import PipelineModel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from sparktasks import LocalPipeline
from sparktasks.errors import ColumnError
from sparktasks.runtime import session
from sparktasks.spark.annotator import Annotator, ColumnAnnotator
from sparktasks.spark.fusion import Chain, chain_of
from sparktasks.spark.generation_annotator import GenerationAnnotator
from sparktasks.spark.params import declared
from sparktasks.spark.persist import load_stage
from sparktasks.spark.types import ANNOTATIONS
from tests.contract.subjects import ROWS, SCHEMA, TEXTS, needed, outputs, plain, same, subjects, upstream

SUBJECTS = subjects()

pytestmark = pytest.mark.filterwarnings("ignore:.*lost its annotator type")


@pytest.fixture(scope="module", params=SUBJECTS)
def stage(request: pytest.FixtureRequest) -> Annotator:
    return SUBJECTS[request.param]


@pytest.fixture(scope="module")
def df(spark: SparkSession) -> DataFrame:
    return spark.createDataFrame(ROWS, SCHEMA).coalesce(1)


def run(stage: Annotator, df: DataFrame) -> dict[int, list[Any]]:
    """Return the output cells of each row by its id; every id must come back once."""
    found = PipelineModel([*needed(stage), stage]).transform(df).select("id", *outputs(stage)).collect()
    rows = {row["id"]: [plain(cell) for cell in row[1:]] for row in found}
    assert len(rows) == len(found)
    return rows


@pytest.fixture(scope="module")
def reference(stage: Annotator, df: DataFrame) -> dict[int, list[Any]]:
    return run(stage, df)


def test_no_row_is_lost_and_nothing_comes_of_nothing(stage: Annotator, reference: dict[int, list[Any]]) -> None:
    assert sorted(reference) == [index for index, _, _ in ROWS]
    for index, text in enumerate(TEXTS):
        if not text:
            assert all(cell in ([], None) for cell in reference[index]), f"row {index}"
    assert any(cell for cell in reference[0]), "the first row has nothing: this suite would test nothing"


def test_equal_texts_get_equal_annotations(reference: dict[int, list[Any]]) -> None:
    assert reference[0] == reference[4]


def test_source_text_stands_at_its_offsets(stage: Annotator, reference: dict[int, list[Any]]) -> None:
    kinds = {"token", "chunk", "word_embeddings", "sentence_embeddings", "document"}
    for index, cells in reference.items():
        document = " ".join(TEXTS[index].split()) if "Words" in type(stage).__name__ and TEXTS[index] else TEXTS[index]
        for annotation in (
            item for cell in cells if isinstance(cell, list) for item in cell if isinstance(item, tuple)
        ):
            kind, begin, end, result, *_ = annotation
            if isinstance(stage, GenerationAnnotator):
                document = result  # a new text
            assert document is not None
            assert 0 <= begin <= end + 1 <= len(document)
            assert kind not in kinds or result is None or document[begin : end + 1] == result


def test_other_adapter_gives_equal_results(
    stage: Annotator, df: DataFrame, reference: dict[int, list[Any]], adapter: str
) -> None:
    assert same(list(run(stage, df).items()), list(reference.items()))


def test_order_partitions_and_batches_change_nothing(
    spark: SparkSession, stage: Annotator, df: DataFrame, reference: dict[int, list[Any]]
) -> None:
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", "5")
    try:
        found = run(stage, df.orderBy(F.desc("id")).repartition(3))
    finally:
        spark.conf.unset("spark.sql.execution.arrow.maxRecordsPerBatch")
    assert same([found[index] for index in reference], list(reference.values()))


def test_single_rows_give_what_they_give_in_company(stage: Annotator, reference: dict[int, list[Any]]) -> None:
    local = LocalPipeline([*needed(stage), stage])
    for index, text, words in ROWS:
        found = local.fullAnnotate({"text": text, "words": words})
        assert same([plain(found[name]) for name in outputs(stage)], reference[index])


def test_local_pipeline_equals_spark(stage: Annotator, reference: dict[int, list[Any]]) -> None:
    found = LocalPipeline([*needed(stage), stage]).fullAnnotate(
        [{"text": text, "words": words} for _, text, words in ROWS]
    )
    assert same([[plain(row[name]) for name in outputs(stage)] for row in found], list(reference.values()))


def test_saved_stage_is_the_same_stage(
    spark: SparkSession, stage: Annotator, df: DataFrame, reference: dict[int, list[Any]], tmp_path: Path
) -> None:
    path = str(tmp_path / "stage")
    stage.save(path)
    stage.write().overwrite().save(path)
    loaded = type(stage).load(path)
    assert (type(loaded), loaded.uid) == (type(stage), stage.uid)
    assert {name: loaded.getOrDefault(name) for name in declared(type(stage))} == {
        n: stage.getOrDefault(n) for n in declared(type(stage))
    }
    assert same(list(run(loaded, df).items()), list(reference.items()))
    assert load_stage(tmp_path / "stage").uid == stage.uid


def test_copy_does_not_share_params(stage: Annotator) -> None:
    copied = stage.copy()
    name = next(name for name in ("inputCol", "inputCols") if stage.hasParam(name))
    before = stage.getOrDefault(name)
    copied.setParams(**{name: "elsewhere"})
    assert stage.getOrDefault(name) == before
    assert copied.uid == stage.uid


def test_stage_and_kernels_pickle_small(stage: Annotator, df: DataFrame) -> None:
    assert pickle.loads(pickle.dumps(stage)).uid == stage.uid
    chain: Chain = chain_of(df)
    for each in [*upstream(), stage]:
        chain = each.extend(chain)
    for step in chain.steps:
        content = pickle.dumps(step.kernel)
        assert len(content) < 64 * 1024
        assert pickle.loads(content) == step.kernel


def test_every_param_has_a_setter_a_getter_and_a_doc(stage: Annotator) -> None:
    for name, param in declared(type(stage)).items():
        capital = name[0].upper() + name[1:]
        value = getattr(stage, f"get{capital}")()
        assert getattr(stage.copy(), f"set{capital}")(value).getOrDefault(name) == value
        assert len(param.doc) > 10
        assert not param.doc.endswith(".")


def test_inputs_are_untouched_and_output_is_what_writes_says(stage: Annotator, df: DataFrame) -> None:
    before = PipelineModel(upstream()).transform(df)
    after = stage.transform(before)
    assert after.columns[: len(before.columns)] == before.columns
    assert after.schema.fields[: len(before.columns)] == before.schema.fields
    if isinstance(stage, ColumnAnnotator):
        field = after.schema[outputs(stage)[0]]
        assert (field.dataType, field.metadata) == (ANNOTATIONS, {"annotatorType": stage.writes})


def test_annotations_carry_the_type_that_writes_says(stage: Annotator, reference: dict[int, list[Any]]) -> None:
    if isinstance(stage, ColumnAnnotator):
        assert {annotation[0] for cells in reference.values() for annotation in cells[0]} == {stage.writes}


def test_missing_and_misfit_columns_are_refused_before_a_job(stage: Annotator, df: DataFrame) -> None:
    frame = PipelineModel(upstream()).transform(df)
    name = next(name for name in ("inputCol", "inputCols") if stage.hasParam(name) and stage.getOrDefault(name))
    plural = len(stage.getOrDefault(name)) if name == "inputCols" else 1
    if name == "inputCols" and not isinstance(stage, ColumnAnnotator):
        stage = stage.copy().setParams(outputCols=None)
        plural = 1
    for wrong, message in [("nowhere", "there is no column 'nowhere'"), ("id", "'id' is .*int.*would fit: '")]:
        value: Any = wrong if name == "inputCol" else [wrong] * plural
        with pytest.raises(ColumnError, match=message) as caught:
            stage.copy().setParams(**{name: value}).transform(frame)
        assert stage.uid in str(caught.value)


def test_no_model_is_opened_on_the_driver(
    stage: Annotator, df: DataFrame, reference: dict[int, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise AssertionError(f"{path} was opened on the driver")

    monkeypatch.setattr(session, "_open", refuse)
    monkeypatch.setattr(session, "_sessions", type(session._sessions)(1))
    assert same(list(run(stage, df).items()), list(reference.items()))
