"""How models reach the processes that run them: each way gives the same answers, and a damaged or deleted copy never
runs."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pyspark.ml import PipelineModel
from pyspark.sql import DataFrame, SparkSession

from sparktasks import DocumentAssembler, LocalPipeline, TextClassifier
from sparktasks.errors import DeliveryError, ParamError
from sparktasks.kernels import parcels as received
from sparktasks.kernels.parcels import DELIVERY_SETTING, BundleRef, Parcel
from sparktasks.runtime.bundle import open_bundle
from sparktasks.runtime.store import Store
from sparktasks.spark import delivery
from sparktasks.spark.delivery import deliver, way_of

TEXTS = ["play music", "book a table in lisbon", "what is the weather", "stop"]


@pytest.fixture
def way(request: pytest.FixtureRequest, spark: SparkSession) -> Iterator[str]:
    spark.conf.set(DELIVERY_SETTING, request.param)
    yield request.param
    spark.conf.unset(DELIVERY_SETTING)


@pytest.fixture
def model(bundle: Callable[[str], str], tmp_path: Path) -> PipelineModel:
    """Stages with one model of new content: no worker that still runs has it open."""
    folder = Path(shutil.copytree(bundle("bert-text-classification"), tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"made_in": str(tmp_path)}))
    stages = [TextClassifier.pretrained(folder, topK=top, outputCol=f"top{top}") for top in (1, 2, 3)]
    return PipelineModel([DocumentAssembler(), *stages])


def frame(spark: SparkSession) -> DataFrame:
    return spark.createDataFrame(list(enumerate(TEXTS * 5)), "id long, text string").repartition(2)


def answers(model: PipelineModel, df: DataFrame) -> list[Any]:
    return sorted(model.transform(df).select("id", "top1.result", "top3.result", "top3.score").collect())


@pytest.mark.parametrize("way", ["broadcast", "file"], indirect=True)
def test_a_model_that_is_sent_gives_what_a_path_gives(way: str, spark: SparkSession, model: PipelineModel) -> None:
    content = model.stages[1].getBundle().hash
    assert content not in Store().keys("bundles")
    sent = answers(model, frame(spark))
    assert content in Store().keys("bundles")
    assert len(deliver([model.stages[1].getBundle()], spark)) == 1
    spark.conf.set(DELIVERY_SETTING, "path")
    assert answers(model, frame(spark)) == sent
    assert deliver([model.stages[1].getBundle()], spark) == []
    local = LocalPipeline(model).annotate(TEXTS)
    assert [row[1] for row in sent] == [each["top1"] for each in local] * 5


@pytest.mark.parametrize("way", ["broadcast"], indirect=True)
def test_a_copy_that_is_deleted_under_a_running_application_is_made_again(
    way: str, spark: SparkSession, model: PipelineModel
) -> None:
    before = answers(model, frame(spark))
    shutil.rmtree(Store().root)
    assert answers(model, frame(spark)) == before
    assert Store().keys("bundles") == [model.stages[1].getBundle().hash]


@pytest.mark.parametrize("way", ["broadcast"], indirect=True)
def test_equal_models_are_sent_once(way: str, spark: SparkSession, bundle: Callable[[str], str]) -> None:
    bundles = [open_bundle(bundle("bert-text-classification")) for _ in range(2)]
    first, second = (deliver([each], spark)[0] for each in bundles)
    assert first is second


class Chunk:
    """Stands for a broadcast on an executor."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    @property
    def value(self) -> bytes:
        self._value = self.content
        return self._value


def chunks(folder: str) -> tuple[BundleRef, tuple[tuple[str, int], ...], bytes]:
    opened = open_bundle(folder)
    files = tuple((name, (opened.folder / name).stat().st_size) for name in opened.files)
    return BundleRef.of(opened), files, b"".join((opened.folder / name).read_bytes() for name in opened.files)


@pytest.mark.parametrize("size", [1000, 4096, 10_000_000])
def test_chunks_become_the_files_they_were_cut_from(size: int, bundle: Callable[[str], str], tmp_path: Path) -> None:
    ref, files, content = chunks(bundle("bert-embedding-mean"))
    parts = tuple(Chunk(content[start : start + size]) for start in range(0, len(content), size))
    received._unpack(ref, Parcel(ref.hash, "broadcast", files, parts), tmp_path)
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} == {
        name for name, _ in files
    }
    assert all((tmp_path / name).read_bytes() == (Path(ref.folder) / name).read_bytes() for name, _ in files)
    assert not any("_value" in vars(part) for part in parts), "chunks stay in the worker's memory"


def _flipped(content: bytes) -> bytes:
    return content[:-100] + bytes([content[-100] ^ 1]) + content[-99:]


@pytest.mark.parametrize("harm", [_flipped, lambda content: content[:-7], lambda content: b""])
def test_a_damaged_arrival_is_refused_and_leaves_nothing(
    harm: Callable[[bytes], bytes], bundle: Callable[[str], str], tmp_path: Path
) -> None:
    ref, files, content = chunks(bundle("bert-text-classification"))
    parcel = Parcel(ref.hash, "broadcast", files, (Chunk(harm(content)),))
    store = Store(tmp_path)
    with pytest.raises(
        DeliveryError,
        match=rf"did not arrive whole on {socket.gethostname()} by broadcast: their hash is not {ref.hash[:12]}",
    ):
        store.open("bundles", ref.hash, lambda folder: received._unpack(ref, parcel, folder))
    assert store.keys("bundles") == []


def test_files_that_change_after_the_stage_was_made_are_not_sent(
    spark: SparkSession, bundle: Callable[[str], str], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(bundle("bert-text-classification"), tmp_path / "model"))
    opened = open_bundle(folder).sealed()
    (folder / "README.md").write_text("A new card is no new model.")
    os.utime(folder / "config.json", (0, 0))
    opened.check_unchanged()
    (folder / "config.json").write_text((folder / "config.json").read_text().replace("play_music", "other_label"))
    with pytest.raises(DeliveryError, match="holds other files than when the stage was made"):
        delivery._sent(opened, "broadcast", spark)


def test_the_way_is_chosen_by_the_session_and_the_path(spark: SparkSession) -> None:
    assert way_of(spark, Path("/models/one")) == "path"
    spark.conf.set(DELIVERY_SETTING, "artifact")
    try:
        with pytest.raises(
            ParamError,
            match=r"delivery='artifact' is not allowed on classic Spark: it takes 'auto', 'path', 'broadcast', 'file'",
        ):
            way_of(spark, Path("/models/one"))
    finally:
        spark.conf.unset(DELIVERY_SETTING)


class FakeSession:
    """A classic session on a cluster."""

    _jsparkSession = None

    def __init__(self, master: str, **settings: str) -> None:
        self.conf, self.sparkContext, self.master, self.settings = self, self, master, settings

    def get(self, name: str, default: str) -> str:
        return self.settings.get(name.replace(".", "_"), default)

    def getConf(self) -> FakeSession:
        return self


@pytest.mark.parametrize(
    ("session", "folder", "wanted"),
    [
        (FakeSession("yarn"), "/models/one", "broadcast"),
        (FakeSession("local-cluster[2,1,1024]"), "/models/one", "broadcast"),
        (FakeSession("k8s://host", spark_io_encryption_enabled="true"), "/models/one", "file"),
        (FakeSession("yarn"), "/Volumes/main/models/one", "path"),
        (FakeSession("yarn"), "/dbfs/models/one", "path"),
        (FakeSession("local[*]"), "/models/one", "path"),
        (FakeSession("local[*]", spark_sparktasks_delivery="file"), "/models/one", "file"),
    ],
)
def test_each_kind_of_session_has_its_way(session: Any, folder: str, wanted: str) -> None:
    assert way_of(session, Path(folder)) == wanted
