"""Job files that ask for what does not exist are refused before Spark is started, and the message says what is
allowed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sparktasks import cli
from sparktasks.errors import JobError
from sparktasks.jobs import session
from sparktasks.jobs.loading import load_job
from tests.jobs.making import STAGES, job, write_job


def test_load_reads_every_section(tmp_path: Path) -> None:
    loaded = load_job(
        write_job(
            tmp_path,
            spark={"master": "local[2]", "config": {"spark.sql.shuffle.partitions": 4}},
            read={"path": ["a", "b"], "options": {"multiLine": True}, "where": "id > 1"},
            write={"partitionBy": "day", "columns": ["id", "finished_intent AS intent"]},
            id="id",
            resume=True,
            chunks=3,
            onError="fail",
        )
    )
    assert loaded.name == "job"
    assert (loaded.spark.master, loaded.spark.config) == ("local[2]", {"spark.sql.shuffle.partitions": 4})
    assert (loaded.read.format, loaded.read.path, loaded.read.options, loaded.read.where) == (
        "json",
        ["a", "b"],
        {"multiLine": True},
        "id > 1",
    )
    assert [stage.name for stage in loaded.stages] == ["DocumentAssembler", "TextClassifier", "Finisher"]
    assert (loaded.stages[1].source, loaded.stages[1].file) == (STAGES[1]["TextClassifier"]["pretrained"], None)
    assert loaded.stages[1].params == {"outputCol": "intent"}
    assert (loaded.write.partitionBy, loaded.write.columns) == (["day"], ["id", "finished_intent AS intent"])
    assert (loaded.id, loaded.resume, loaded.chunks, loaded.onError) == ("id", True, 3, "fail")


def test_load_takes_values_in_any_case_as_spark_does(tmp_path: Path) -> None:
    loaded = load_job(
        write_job(tmp_path, read={"format": "JSON"}, write={"format": "Parquet", "mode": "Overwrite"}, onError="FAIL")
    )
    assert (loaded.read.format, loaded.write.format, loaded.write.mode) == ("json", "parquet", "overwrite")
    assert loaded.onError == "fail"
    loaded = load_job(write_job(tmp_path, read={"format": "com.acme.Rows"}, id="id", resume="Adopt", retry="Errors"))
    assert (loaded.read.format, loaded.resume, loaded.retry) == ("com.acme.Rows", "adopt", "errors")
    with pytest.raises(JobError, match=r"read: the format 'binaryfile' needs a 'path'"):
        load_job(write_job(tmp_path, read={"format": "binaryFile", "path": None}))


def test_load_takes_stages_without_params_and_keys_without_values(tmp_path: Path) -> None:
    loaded = load_job(
        write_job(
            tmp_path, stages=["DocumentAssembler", {"RegexTokenizer": None}], read={"options": None, "where": None}
        )
    )
    assert [(stage.name, stage.source, stage.params) for stage in loaded.stages] == [
        ("DocumentAssembler", None, {}),
        ("RegexTokenizer", None, {}),
    ]
    assert (loaded.read.options, loaded.read.where) == ({}, None)


def stages(*changed: Any) -> dict[str, Any]:
    return {"stages": [STAGES[0], *changed]}


RESUME = {"id": "id", "resume": True}
FAULTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "key of the file": ({"stage": []}, ["no key 'stage'", "Did you mean 'stages'?", "'read', 'write', 'spark'"]),
    "key of read": (
        {"read": {"pth": "x"}},
        ["job.yaml: read: there is no key 'pth'", "Did you mean 'path'?", "'where'"],
    ),
    "key of write": (
        {"write": {"partitionby": "day"}},
        ["job.yaml: write: there is no key 'partitionby'", "Did you mean 'partitionBy'?"],
    ),
    "key of spark": ({"spark": {"conf": {}}}, ["job.yaml: spark: there is no key 'conf'", "Did you mean 'config'?"]),
    "class": (
        stages({"TextClasifier": {}}),
        ["stages[1]: there is no annotator 'TextClasifier'", "Did you mean 'TextClassifier'?"],
    ),
    "class that is no stage": (stages({"LocalPipeline": {}}), ["no annotator 'LocalPipeline'", "'DocumentAssembler'"]),
    "param": (
        stages({"TextClassifier": {"topk": 3}}),
        ["stages[1]", "no param 'topk'", "Did you mean 'topK'?", "'threshold'"],
    ),
    "value of a param": (stages({"TextClassifier": {"topK": 0}}), ["stages[1]", "topK=0", "at least 1"]),
    "model for none": (
        stages({"Finisher": {"pretrained": "x"}}),
        ["Finisher has no model, so it takes no 'pretrained'"],
    ),
    "model file for none": (stages({"Finisher": {"file": "x.onnx"}}), ["Finisher has no model, so it takes no 'file'"]),
    "two classes in one stage": (stages({"Finisher": {}, "RegexTokenizer": {}}), ["stages[1]", "one class"]),
    "params that are a list": (
        stages({"Finisher": ["intent"]}),
        ["stages[1]: Finisher is ['intent']", "mapping of params"],
    ),
    "stages that are a mapping": ({"stages": STAGES[0]}, ["stages is {", "list of stages"]),
    "no stages": ({"stages": None}, ["either 'stages'", "or 'pipeline'"]),
    "stages and pipeline": ({"pipeline": "x"}, ["either 'stages'", "or 'pipeline'"]),
    "no write": ({"write": {"format": None}}, ["write: the key 'format' is missing", "'parquet'"]),
    "no path": ({"read": {"path": None}}, ["read: the format 'json' needs a 'path'"]),
    "path and table": ({"write": {"table": "t"}}, ["write: 'table' and 'path' cannot be combined"]),
    "table with a format": ({"read": {"path": None, "table": "t"}}, ["read: a table knows its format", "'format'"]),
    "mode": ({"write": {"mode": "replace"}}, ["write: mode='replace'", "'append', 'overwrite', 'ignore', 'error'"]),
    "option": (
        {"read": {"options": {"header": ["yes"]}}},
        ["read: options: header is ['yes']", "a string, a number, true or false"],
    ),
    "type": ({"resume": "always"}, ["resume='always'", "bool"]),
    "section that is a list": ({"spark": ["x"]}, ["spark is ['x']", "mapping", "'master'"]),
    "onError": ({"onError": "skip"}, ["onError='skip'", "'keep', 'fail'"]),
    "master and remote": (
        {"spark": {"master": "local", "remote": "sc://x"}},
        ["'master' and 'remote' cannot be combined"],
    ),
    "chunks without resume": ({"chunks": 4}, ["'chunks' has no effect without 'resume: true'"]),
    "no chunks": (RESUME | {"chunks": 0}, ["chunks=0", "at least 1"]),
    "retry without resume": ({"retry": "errors"}, ["'retry' has no effect without 'resume: true'"]),
    "retry of something": (RESUME | {"retry": "all"}, ["retry='all'", "'errors'"]),
    "retry of what is redone": (
        RESUME | {"resume": "redo", "retry": "errors"},
        ["'retry: errors' and 'resume: redo' cannot be combined"],
    ),
    "retry in a table": (
        RESUME | {"retry": "errors", "write": {"path": None, "format": None, "table": "t"}},
        ["'retry: errors' replaces rows in files"],
    ),
    "retry in a table of files": (
        RESUME | {"retry": "errors", "write": {"path": None, "table": "t"}},
        ["'retry: errors' replaces rows in files"],
    ),
    "resume in a way": (RESUME | {"resume": "again"}, ["resume='again'", "'redo', 'adopt'"]),
    "resume without id": ({"resume": True}, ["'resume' needs 'id'"]),
    "resume with overwrite": (
        RESUME | {"write": {"mode": "overwrite"}},
        ["mode='overwrite' and 'resume: true' cannot be combined", "append"],
    ),
    "resume with error": (
        RESUME | {"write": {"mode": "error"}},
        ["mode='error' and 'resume: true' cannot be combined"],
    ),
    "resume partitioned by id": (RESUME | {"write": {"partitionBy": ["id"]}}, ["partitionBy names the id column 'id'"]),
    "resume partitioned by id in another case": (
        RESUME | {"write": {"partitionBy": ["ID"]}},
        ["partitionBy names the id column 'id'"],
    ),
    "resume into nowhere": (
        RESUME | {"write": {"format": "noop", "path": None}},
        ["'resume' needs an output that can be read again"],
    ),
}


@pytest.fixture
def no_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "session_of", lambda job: pytest.fail("a session was asked for"))


@pytest.mark.parametrize("fault", FAULTS)
def test_run_refuses_a_faulty_job_before_spark(
    tmp_path: Path, fault: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    changes, expected = FAULTS[fault]
    monkeypatch.setattr(session, "session_of", lambda job: pytest.fail("a session was asked for"))
    with pytest.raises(SystemExit) as stopped:
        cli.main(["run", str(write_job(tmp_path, **changes))])
    errors = capsys.readouterr().err
    assert stopped.value.code == cli.REFUSED
    assert "Traceback" not in errors
    assert [part for part in expected if part not in errors] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("read: {a: 1, a: 2}", "'a' is given twice, again in line 1"),
        ("read: [", "not valid YAML"),
        ("{? [a, b] : 1, ? {c: d} : 2}", "not valid YAML"),
        ("just text", "must be a mapping"),
        ("", "must be a mapping"),
        ("write: {format: noop}", "the key 'read' is missing"),
    ],
)
def test_load_names_what_is_wrong_with_the_yaml(tmp_path: Path, text: str, expected: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(JobError, match=r"bad\.yaml") as caught:
        load_job(file)
    assert expected in str(caught.value)


def test_load_takes_numbers_with_exponents_and_a_place_for_anchors(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(
        "\ufeffx-model: &model {topK: null, threshold: 1e-3}\nread: {format: json, path: a}\nwrite: {format: noop}\n"
        "stages: [{TextClassifier: {<<: *model, outputCol: a}}, {TextClassifier: {<<: *model, threshold: 5E-1}}]\n",
        encoding="utf-8",
    )
    loaded = load_job(file)
    assert [stage.params for stage in loaded.stages] == [
        {"topK": None, "threshold": 0.001, "outputCol": "a"},
        {"topK": None, "threshold": 0.5},
    ]


def test_load_names_the_encoding_and_the_place_of_a_letter_that_is_not_utf_8(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_bytes("# ok\n# Stra\u00dfe\n".encode("latin-1"))
    with pytest.raises(JobError, match=r"job\.yaml is not written in UTF-8: line 2 holds the byte 0xdf, as Latin-1"):
        load_job(file)


def test_load_names_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"there is no job file .*nope\.yaml"):
        load_job(tmp_path / "nope.yaml")


def test_job_of_the_tests_is_sound(tmp_path: Path) -> None:
    assert set(job(tmp_path)) == {"read", "stages", "write"}
    assert load_job(write_job(tmp_path)).chunks is None
