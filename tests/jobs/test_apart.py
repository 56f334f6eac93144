"""A job never destroys what it reads: output and input are compared as real places before anything runs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyspark.ml import Pipeline
from pyspark.sql import SparkSession

from sparktasks import DocumentAssembler
from sparktasks.errors import JobError
from sparktasks.jobs.loading import load_job
from sparktasks.jobs.run import run_job
from tests.jobs.making import BUNDLE, texts, write_job

LIGHT = ["DocumentAssembler", {"Finisher": {"inputCols": ["document"]}}]


@pytest.fixture(scope="module")
def rows(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of rows by day."""
    folder = tmp_path_factory.mktemp("rows") / "data"
    rows = [(row["id"], row["text"], f"d{row['id'] % 2}") for row in texts(range(6))]
    spark.createDataFrame(rows, "id long, text string, day string").write.partitionBy("day").parquet(str(folder))
    return folder


@pytest.fixture
def data(rows: Path, tmp_path: Path) -> Path:
    """The rows, below ``a folder/data``, with two links to them."""
    folder = shutil.copytree(rows, tmp_path / "a folder" / "data")
    (tmp_path / "link").symlink_to(tmp_path / "a folder")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "linked.parquet").symlink_to(next(folder.rglob("part-*")))
    return tmp_path


def run(spark: SparkSession, folder: Path, paths: list[str] | None, out: str | None, **changes: Any) -> None:
    section = {"format": "parquet", "schema": None, "path": paths}
    write = {"mode": "overwrite", "path": out} | changes.pop("write", {})
    run_job(
        load_job(
            write_job(folder / "job", stages=LIGHT, read=section | changes.pop("read", {}), write=write, **changes)
        ),
        spark,
    )


PLACES: dict[str, tuple[list[str], str]] = {
    "the same": (["{}/a folder/data"], "{}/a folder/data"),
    "the same, in other words": (["{}/a folder/../a folder/data/"], "file:{}/a folder/data"),
    "the same, by a link": (["{}/link/data"], "{}/a folder/data"),
    "above": (["{}/a folder/data"], "{}/a folder"),
    "above, by a link": (["file://{}/a folder/data"], "{}/link"),
    "below": (["{}/a folder/data"], "{}/a folder/data/out"),
    "one of several": (["{}/other", "{}/a folder/data/day=d0"], "{}/a folder/data/day=d0"),
    "a pattern that it meets": (["{}/a fo*/da[t]a/day={{d0,d9}}"], "{}/a folder/data/day=d0"),
    "a pattern below it": (["{}/*/data/*/*.parquet"], "{}/a folder/data"),
    "a file that is a link": (["{}/other/*.parquet"], "{}/a folder"),
}


@pytest.mark.parametrize("case", PLACES)
def test_output_that_would_destroy_its_input_is_refused(spark: SparkSession, data: Path, case: str) -> None:
    read, out = PLACES[case]
    with pytest.raises(JobError, match=r"mode: overwrite that would be deleted\. Nothing was run"):
        run(spark, data, [path.format(data) for path in read], out.format(data))
    assert spark.read.parquet(str(data / "a folder" / "data")).count() == 6
    assert not list(data.rglob("*.lock"))


def test_relative_paths_are_compared_too(spark: SparkSession, data: Path) -> None:
    folder = data / "a folder" / "data"
    relative = "../" * len(Path.cwd().parts) + str(folder).lstrip("/")
    with pytest.raises(JobError, match="would be deleted"):
        run(spark, data, [relative], str(folder))


@pytest.mark.parametrize("read", ["{}/a folder/data/day=d1", "{}/a folder/data/*1"])
def test_output_beside_its_input_is_allowed(spark: SparkSession, data: Path, read: str) -> None:
    run(spark, data, [read.format(data)], str(data / "a folder" / "data" / "day=d10"))
    run(spark, data, [read.format(data)], str(data / "a folder" / "out"))


@pytest.mark.parametrize(
    "changes", [{"write": {"mode": "append"}}, {"write": {"mode": None}, "id": "id", "resume": True}]
)
def test_output_that_is_its_own_input_is_refused(spark: SparkSession, data: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(JobError, match="the job would read its own rows the next time"):
        run(spark, data, [str(data / "link" / "data")], str(data / "a folder" / "data"), **changes)


def test_redo_is_an_overwrite(spark: SparkSession, data: Path) -> None:
    with pytest.raises(JobError, match="with resume: redo that would be deleted"):
        run(
            spark,
            data,
            [str(data / "a folder" / "data")],
            str(data / "link"),
            write={"mode": None},
            id="id",
            resume="redo",
        )


def test_folder_of_the_pipeline_is_not_overwritten(spark: SparkSession, data: Path) -> None:
    Pipeline(stages=[DocumentAssembler()]).fit(spark.range(1)).write().save(str(data / "kept" / "saved"))
    job = {"stages": None, "pipeline": str(data / "kept" / "saved")}
    section = {"format": "parquet", "schema": None, "path": str(data / "a folder" / "data")}
    with pytest.raises(JobError, match="holds the pipeline"):
        run_job(
            load_job(
                write_job(data / "job", read=section, write={"mode": "overwrite", "path": str(data / "kept")}, **job)
            ),
            spark,
        )


@pytest.fixture
def table(spark: SparkSession, data: Path) -> Iterator[str]:
    spark.read.parquet(str(data / "a folder" / "data")).write.saveAsTable("jobs_apart")
    yield "jobs_apart"
    spark.sql("DROP TABLE IF EXISTS jobs_apart")
    spark.sql("DROP TABLE IF EXISTS jobs_apart_out")


def test_folder_of_a_model_is_not_overwritten(spark: SparkSession, data: Path) -> None:
    model = shutil.copytree(BUNDLE, data / "kept" / "model")
    stages = ["DocumentAssembler", {"TextClassifier": {"pretrained": str(model)}}]
    section = {"format": "parquet", "schema": None, "path": str(data / "a folder" / "data")}
    job = write_job(data / "job", read=section, write={"mode": "overwrite", "path": str(data / "kept")}, stages=stages)
    with pytest.raises(JobError, match="holds the model"):
        run_job(load_job(job), spark)


def test_tables_are_compared_by_their_folders(spark: SparkSession, data: Path, table: str) -> None:
    rows = spark.sql(f"DESCRIBE TABLE EXTENDED {table}").where("col_name = 'Location'").collect()
    folder = rows[0]["data_type"]
    with pytest.raises(JobError, match="would be deleted"):
        run(spark, data, None, folder, read={"format": None, "table": table})
    with pytest.raises(JobError, match="would be deleted"):
        run(spark, data, [folder], None, write={"table": table, "path": None})
    run(spark, data, None, None, read={"format": None, "table": table}, write={"table": f"{table}_out", "path": None})
    assert spark.table(table).count() == 6
