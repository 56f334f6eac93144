"""Columns of pictures and sound pass through everything that text columns pass through."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyspark.ml import Pipeline, PipelineModel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import BinaryType

import sparktasks
from sparktasks import Finisher, LocalPipeline, RegexTokenizer, VectorFinisher
from sparktasks.errors import ColumnError, ParamError
from sparktasks.jobs.stages import annotated
from sparktasks.kernels.columns import AUDIO_TYPE, IMAGE_TYPE, KINDS
from sparktasks.spark.annotator import Annotator
from sparktasks.spark.fusion import Chain
from sparktasks.spark.inputs import Wanted
from sparktasks.spark.params import P, one_of, param
from sparktasks.spark.types import annotation_field, column_type

ROWS = [(0, b"\x89PNG"), (1, None), (2, b""), (3, b"\x00\xff\x00")]
EMPTY = "DataError: the file is empty"
BYTES = Wanted("binary", lambda dtype, _: isinstance(dtype, BinaryType), (pa.binary(),))


@dataclass(frozen=True)
class AssembleMedia:
    """binary -> images or clips."""

    kind: str

    def __call__(self, *columns: pa.Array) -> pa.Array:
        rows: list[list[dict[str, Any]]] = []
        for place, content in enumerate(columns[0].to_pylist()):
            fault = [("error", EMPTY)] if content == b"" else []
            media = {"annotatorType": self.kind, "origin": f"file{place}", "nChannels": 3, "metadata": fault}
            more = {"height": 0, "width": 0, "mode": -1} if self.kind == IMAGE_TYPE else {"sampleRate": 0}
            rows.append([] if content is None else [media | more | {"result": content or None}])
        return pa.array(rows, KINDS[self.kind].column)


class MediaAssembler(Annotator):
    """Turns a binary column into a column of images or clips."""

    outputCol: P[str] = param("name of the column to write", default="media")
    kind: P[str] = param("what the bytes are", default=IMAGE_TYPE, check=one_of(IMAGE_TYPE, AUDIO_TYPE))

    def extend(self, chain: Chain) -> Chain:
        kind, name = self.getOrDefault(self.kind), self.getOrDefault(self.outputCol)
        column = chain.find("content", self.uid, BYTES)
        return chain.add(AssembleMedia(kind), [column], annotation_field(name, kind), self.uid)


@pytest.fixture(params=[IMAGE_TYPE, AUDIO_TYPE])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def df(spark: SparkSession) -> DataFrame:
    return spark.createDataFrame(ROWS, "id int, content binary").coalesce(1)


def test_media_pass_through_spark_as_they_are(df: DataFrame, kind: str, adapter: str) -> None:
    out = MediaAssembler(kind=kind).transform(df)
    assert out.schema["media"].dataType == column_type(kind)
    assert out.schema["media"].metadata == {"annotatorType": kind}
    rows = [row.media for row in out.orderBy("id").collect()]
    assert [[item.result for item in row] for row in rows] == [
        [bytearray(b"\x89PNG")],
        [],
        [None],
        [bytearray(b"\x00\xff\x00")],
    ]
    assert rows[2][0].metadata == {"error": EMPTY}
    # What Spark hands back is read again by a stage that begins a chain of its own.
    out.persist()
    again = Finisher(inputCols="media", values=["result", "origin", "error"]).transform(out)
    out.unpersist()
    assert [tuple(row)[2:] for row in again.orderBy("id").collect()] == [
        ([bytearray(b"\x89PNG")], ["file0"], [None]),
        ([], [], []),
        ([None], ["file2"], [EMPTY]),
        ([bytearray(b"\x00\xff\x00")], ["file3"], [None]),
    ]


def test_media_pass_through_a_local_pipeline(kind: str) -> None:
    local = LocalPipeline([MediaAssembler(kind=kind)])
    assert local.annotate([b"\x89PNG", None]) == [{"media": [b"\x89PNG"]}, {"media": []}]
    (item,) = local.fullAnnotate(b"")["media"]
    assert (item["annotatorType"], item["result"], item["metadata"]) == (kind, None, {"error": EMPTY})
    with pytest.raises(ColumnError, match="the column 'content' expects bytes, not str"):
        local.annotate("text")


def test_stages_of_media_are_saved_and_loaded(
    df: DataFrame, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sparktasks, "MediaAssembler", MediaAssembler, raising=False)
    monkeypatch.setattr(sparktasks, "__all__", [*sparktasks.__all__, "MediaAssembler"])
    stages = [MediaAssembler(kind=kind), Finisher(inputCols="media", values="origin")]
    model = Pipeline(stages=stages).fit(df)  # type: ignore[arg-type]
    model.save(str(tmp_path / "model"))
    expected = model.transform(df).orderBy("id").collect()
    assert PipelineModel.load(str(tmp_path / "model")).transform(df).orderBy("id").collect() == expected
    assert LocalPipeline.load(tmp_path / "model").annotate([b"a"]) == [{"finished_media_origin": ["file0"]}]


@pytest.mark.parametrize("finished", [False, True], ids=["as they are", "finished"])
def test_jobs_count_the_errors_of_media(df: DataFrame, kind: str, finished: bool) -> None:
    stages: list[Any] = [MediaAssembler(kind=kind)]
    if finished:
        stages.append(Finisher(inputCols="media"))
    run = annotated(df, stages, None)
    run.frame.collect()
    assert run.observation.get == {"rows": 4, "faults": 1}


def test_stages_that_read_text_say_what_they_expect(df: DataFrame, kind: str) -> None:
    media = MediaAssembler(kind=kind).transform(df)
    with pytest.raises(ColumnError, match=f"'media' is of type {kind}, but a column of type document is expected"):
        RegexTokenizer(inputCols="media").transform(media)
    with pytest.raises(ColumnError, match=f"holds {kind} annotations, and no embeddings"):
        VectorFinisher(inputCol="media").transform(media)
    with pytest.raises(ParamError, match=r"values has 'score'.* it takes .*'origin'.*'error'"):
        Finisher(inputCols="media", values="score").transform(media)
    with pytest.raises(ParamError, match="outputAs='string'"):
        Finisher(inputCols="media", outputAs="string").transform(media)
