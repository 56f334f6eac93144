"""The files of conf/ do what they say: job files validate and run, settings are settings."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from sparktasks import cli
from sparktasks.jobs.examples import EXAMPLES
from sparktasks.jobs.loading import load_job
from sparktasks.jobs.report import Counts
from sparktasks.jobs.run import run_job
from sparktasks.jobs.spec import Job

CONF = Path(__file__).parent.parent.parent / "conf"
BUNDLES = Path(__file__).parent.parent / "bundles"
JOBS = sorted(path.name for path in (CONF / "jobs").glob("*.yaml"))
SETTINGS = sorted(path.name for path in (CONF / "spark").glob("*.conf"))


def make_input(name: str, folder: Path, spark: SparkSession) -> Path:
    """Write a small input for a job file of conf/."""
    path = folder / "in"
    if name == "intents.yaml":
        path.write_text('id,text\n1,"what is my balance, ""roughly""?"\n2,\n3,set an alarm\n')
    elif name == "parts-of-speech.yaml":
        rows = [(1, "mon", ["Maria", "sings"]), (2, "tue", ["Yes", "!"]), (3, "mon", [])]
        spark.createDataFrame(rows, "id bigint, day string, words array<string>").write.parquet(str(path))
    elif name == "generation.yaml":
        path.write_text('{"id": 1, "who": "ROMEO", "start": "O "}\n{"id": 2, "who": "JULIET", "start": ""}\n')
    elif name == "records.yaml":
        path.write_text('id,review\n1,"A fine lamp, I use it daily"\n2,The kettle leaks\n')
    elif name == "translation.yaml":
        path.write_text("id,text,target\n1,the king,fra\n2,,fra\n3,my lord,deu\n")
    else:
        path.mkdir()
        (path / "a.txt").write_text("First line.\n\nSecond line.\n")
        (path / "b.txt").write_text("Third line.\n")
    return path


def moved(job: Job, source: Path, target: Path) -> Job:
    """Point a job at other folders, and at a tiny model where it wants one that is not in the package."""
    stages = [
        dataclasses.replace(stage, source=str(BUNDLES / TINY[stage.name]))
        if stage.source and stage.source.startswith("models/")
        else stage
        for stage in job.stages
    ]
    read, write = dataclasses.replace(job.read, path=[str(source)]), dataclasses.replace(job.write, path=str(target))
    return dataclasses.replace(job, read=read, write=write, stages=tuple(stages))


TINY = {"TextEmbedder": "bert-embedding-mean", "Translator": "t5-text2text-generation"}
COLUMNS = {
    "generation.yaml": (2, ["id", "text", "finish_reason", "error"]),
    "records.yaml": (2, ["id", "product", "sentiment", "stars", "finish_reason", "error"]),
    "summaries.yaml": (2, ["text", "summary"]),
    "translation.yaml": (2, ["id", "text", "target", "error"]),
    "intents.yaml": (2, ["id", "text", "finished_intent", "finished_intent_score", "finished_intent_error"]),
    "parts-of-speech.yaml": (3, ["id", "words", "tags", "scores", "day"]),
    "embeddings.yaml": (3, ["text", "vector", "truncated"]),
}


CHECKS = {
    "intents.yaml": "size(finished_intent) = 3",
    "parts-of-speech.yaml": "size(tags) = size(words)",
    "embeddings.yaml": "size(vector) > 1",
    "generation.yaml": "length(text) > 0 and error is null",
    "records.yaml": (
        "stars between 1 and 5 and sentiment in ('good', 'bad', 'mixed') and product is not null and error is null"
    ),
    "summaries.yaml": "length(summary) > 0",
    "translation.yaml": "length(text) > 0 and error is null",
}


@pytest.mark.parametrize("name", JOBS)
def test_job_file_runs_on_a_small_table(spark: SparkSession, tmp_path: Path, name: str) -> None:
    rows, columns = COLUMNS[name]
    job = moved(load_job(CONF / "jobs" / name), make_input(name, tmp_path, spark), tmp_path / "out")
    assert run_job(job, spark).counts == Counts(rows, 0)
    frame = spark.read.format(job.write.format).load(str(tmp_path / "out"))
    assert sorted(frame.columns) == sorted(columns)
    assert frame.count() == rows
    assert frame.where(CHECKS[name]).count() == rows


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_has_a_reason(name: str) -> None:
    blocks = [block.splitlines() for block in (CONF / "spark" / name).read_text().split("\n\n")]
    settings = [line for block in blocks for line in block if line and not line.startswith("#")]
    assert settings
    assert all(line.split()[0].startswith("spark.") and len(line.split()) == 2 for line in settings)
    assert len({line.split()[0] for line in settings}) == len(settings)
    assert all(block[0].startswith("#") for block in blocks if block)


def test_examples_of_the_package_are_the_files_of_conf() -> None:
    """A wheel carries no conf/: `cp -r conf/* sparktasks/examples/` after a change."""
    for name in ("jobs", "spark"):
        here = {path.name: path.read_bytes() for path in (CONF / name).iterdir()}
        assert {path.name: path.read_bytes() for path in (EXAMPLES / name).iterdir()} == here


def test_init_writes_the_examples_and_overwrites_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    cli.main(["init"])
    assert sorted(path.name for path in (tmp_path / "conf" / "jobs").iterdir()) == JOBS
    assert sorted(path.name for path in (tmp_path / "conf" / "spark").iterdir()) == SETTINGS
    assert "conf/jobs/intents.yaml" in capsys.readouterr().out.splitlines()
    for name in JOBS:
        load_job(tmp_path / "conf" / "jobs" / name)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["init"])
    assert stopped.value.code == cli.REFUSED
    assert "conf/jobs/embeddings.yaml already exists" in capsys.readouterr().err


def test_conf_has_job_files_and_settings() -> None:
    assert sorted(COLUMNS) == JOBS
    assert SETTINGS == ["cluster.conf", "databricks.conf", "laptop.conf"]


HUGE = "Is it going to rain in town tomorrow or not? " * 4500  # 200 KB
ODD = ["", None, " ", "\u0000\ufeff\u202e", "\U0001f600" * 50, HUGE, "[]{}\\n%s", "\n\n"]


def make_odd_input(name: str, folder: Path, spark: SparkSession) -> Path:
    """Write an input whose cells are null, empty, huge or broken."""
    path = folder / "in"
    path.mkdir()
    if name == "parts-of-speech.yaml":
        words = [None, [], [""], [None, "a", None], ["word"] * 20_000, [HUGE[:50_000]], ["\ufffd", "\u0000"]]
        rows = [(number, None if number == 1 else "d", list_) for number, list_ in enumerate(words)]
        spark.createDataFrame(rows, "id bigint, day string, words array<string>").write.mode("append").parquet(
            str(path)
        )
    elif name == "generation.yaml":
        rows = [{"id": number, "who": text, "start": text} for number, text in enumerate(ODD)]
        lines = [*(json.dumps(row) for row in rows), "no JSON", '{"id": "x"}', '{"who": "A"}', "{", "\ufffd"]
        (path / "a.json").write_text("\n".join(lines))
    elif name in ("embeddings.yaml", "summaries.yaml"):
        for number, text in enumerate(ODD):
            # Extractive summaries compare each sentence with every other one.
            (path / f"{number}.txt").write_text((text or "").replace("? ", ", ", 4480))
    else:
        columns = {"translation.yaml": ["id", "text", "target"], "records.yaml": ["id", "review"]}.get(
            name, ["id", "text"]
        )
        rows = [(number, text, "fra" if number % 2 else None) for number, text in enumerate(ODD)]
        frame = (
            spark.createDataFrame(rows, "id bigint, text string, target string")
            .toDF("id", columns[1], "target")
            .select(*columns)
        )
        frame.write.mode("append").option("header", True).csv(str(path))
        (path / "broken.csv").write_bytes(b'id,text,target\n1,"never closed\n2,a,b,c,d\nx,\xff\xe9,zz\n\n,,\n9\n')
    return path


@pytest.mark.parametrize("name", JOBS)
def test_job_file_runs_over_null_empty_huge_and_broken_cells(spark: SparkSession, tmp_path: Path, name: str) -> None:
    job = moved(load_job(CONF / "jobs" / name), make_odd_input(name, tmp_path, spark), tmp_path / "out")
    summary = run_job(job, spark)
    assert summary.counts.rows
    assert spark.read.format(job.write.format).load(str(tmp_path / "out")).count() == summary.counts.rows
