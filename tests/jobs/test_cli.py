"""The command as a user runs it: in a process of its own, with exit codes."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pyspark
import pytest
import yaml
from pyspark.sql import SparkSession

import sparktasks
from sparktasks import cli
from sparktasks.jobs.describe import first_sentence, task_classes
from sparktasks.jobs.loading import load_job
from sparktasks.jobs.session import _defaults, _settings, session_of
from tests.conftest import SETTINGS
from tests.jobs.making import BUNDLE, STAGES, texts, write_job, write_lines

ROOT = Path(__file__).parent.parent.parent
LOCAL = {"master": "local[1]", "config": SETTINGS}


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, timeout=600)


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    write_lines(tmp_path / "in" / "a.json", texts(range(10)))
    return tmp_path


def test_command_runs_a_job_and_sums_up(songs: Path) -> None:
    run = command("-m", "sparktasks.cli", "run", write_job(songs, spark=LOCAL))
    assert run.returncode == cli.DONE, run.stderr
    assert pq.read_table(songs / "out").num_rows == 10
    lines = run.stdout.splitlines()
    assert lines[:3] == ["job: done", "  rows              10", "  rows with errors  0"]
    assert lines[-1] == f"  written to        {songs / 'out'} (parquet)"


def test_command_fails_where_the_job_fails(
    spark: SparkSession, songs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A row that Spark cannot read is found while the job runs."""
    (songs / "in" / "a.json").write_text('{"id": 1, "text": "one"}\nno JSON\n')
    with pytest.raises(SystemExit) as stopped:
        cli.main(["run", str(write_job(songs, stages=STAGES[:1], read={"options": {"mode": "FAILFAST"}}))])
    out, err = capsys.readouterr()
    assert (stopped.value.code, out) == (cli.FAILED, "")
    log, reason = err.splitlines()[-2:]
    assert log.startswith("sparktasks: Traceback in ")
    assert reason.startswith("sparktasks: failed: ")
    assert not (songs / "out" / "_SUCCESS").exists()


def test_script_runs_a_job_through_spark_submit(songs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """spark-submit's master and settings win over the job file's; what it does not say is taken from the job file."""
    with pytest.raises(SystemExit):
        cli.main(["--script"])
    script = capsys.readouterr().out.strip()
    assert Path(script) == Path(sparktasks.__file__).parent / "__main__.py"
    config = {
        "spark.sql.files.maxRecordsPerFile": 4,
        "spark.sql.parquet.compression.codec": "zstd",
        "spark.executor.memory": "3g",
    }
    job = write_job(songs, stages=STAGES[:1], spark={"master": "spark://nowhere:7077", "config": config})
    submitted = SETTINGS | {"spark.sql.parquet.compression.codec": "gzip"}
    submit = Path(pyspark.__file__).parent / "bin" / "spark-submit"
    settings = ["--master", "local[1]"]
    settings += ["--properties-file", str(ROOT / "conf" / "spark" / "laptop.conf")]
    for name, value in submitted.items():
        settings += ["--conf", f"{name}={value}"]
    run = subprocess.run(
        [str(submit), *settings, script, "run", str(job)],
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ | {"SPARK_HOME": str(submit.parent.parent)},
    )
    assert run.returncode == 0, run.stderr
    assert sorted(pq.read_table(path).num_rows for path in (songs / "out").glob("*.gz.parquet")) == [2, 4, 4]
    assert "  rows              10" in run.stdout.splitlines()
    # spark-submit sends what Python writes to stderr to its own stdout
    left_out = [line for line in run.stdout.splitlines() if line.startswith("job: the session is running already")]
    assert [line.partition("cluster: ")[2] for line in left_out] == ["spark.executor.memory"]


def test_script_of_the_repository_runs_a_job(
    spark: SparkSession, songs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job = write_job(songs, stages=STAGES[:1])
    monkeypatch.setattr(sys, "argv", ["annotate.py", str(job)])
    runpy.run_path(str(ROOT / "scripts" / "annotate.py"), run_name="__main__")
    assert "  rows              10" in capsys.readouterr().out.splitlines()


def test_package_runs_as_a_module() -> None:
    run = command("-m", "sparktasks", "--version")
    assert (run.returncode, run.stdout) == (0, f"sparktasks {sparktasks.__version__}\n")


def test_without_java_the_command_says_which_is_needed(songs: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "sparktasks", "run", str(write_job(songs, spark=LOCAL))],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"JAVA_HOME": str(songs / "nowhere")},
    )
    assert run.returncode == cli.REFUSED
    assert "job: Spark needs Java, 17 or newer, and none runs here" in run.stderr
    assert "Traceback" not in run.stderr


def test_inspect_names_all_that_a_folder_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.Q4_K_M.gguf").write_bytes(b"GGUF")
    with pytest.raises(SystemExit):
        cli.main(["inspect", str(tmp_path)])
    err = capsys.readouterr().err
    assert (
        "holds a GGUF model (model.Q4_K_M.gguf), which llama.cpp runs. It has no config.json, no "
        "tokenizer.json, no model.onnx"
    ) in err


def test_inspect_lists_the_caches_of_a_language_model_once(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["inspect", "shakespeare-llama"])
    refusals = [line for line in capsys.readouterr().out.splitlines() if line.startswith("fits not")]
    assert refusals
    assert all(line.count("present.") <= 2 for line in refusals)


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"sparktasks {sparktasks.__version__}\n"


def test_command_without_arguments_shows_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main([])
    assert stopped.value.code == cli.REFUSED
    assert "COMMAND" in capsys.readouterr().err


def test_tasks_lists_every_task_with_its_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["tasks"])
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["task", "annotator", "starter", "what", "it", "does"]
    assert [line.split()[0] for line in lines] == list(sparktasks.TASKS)
    for line, cls in zip(lines, task_classes().values(), strict=True):
        assert line.split()[1:3] == [cls.__name__, cls.starter or "-"]
        assert line.endswith(first_sentence(cls))
        assert first_sentence(cls).endswith(".")


def test_inspect_describes_a_bundle(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["inspect", str(BUNDLE)])
    lines = capsys.readouterr().out.splitlines()
    entries: dict[str, list[str]] = {}
    for line in lines:
        entries.setdefault(line[:12].strip(), []).append(line[12:])
    bundle = sparktasks.TextClassifier.pretrained(BUNDLE).getBundle()
    assert entries["kind"] == ["bert, BertForSequenceClassification"]
    assert [entry.split(":")[0] for entry in entries["input"]] == [port.name for port in bundle.graph.inputs]
    assert all(entry.count("(") == 1 and "int64" in entry for entry in entries["input"])
    assert entries["output"] == [f"logits: float32 (batch_size, {len(bundle.labels)})"]
    assert entries["labels"] == [f"{len(bundle.labels)}: {', '.join(bundle.labels)}"]
    assert entries["max length"] == [f"{bundle.max_length} tokens"]
    assert entries["sha256"] == [bundle.hash]
    assert f"model.onnx {(BUNDLE / 'model.onnx').stat().st_size:,}" in entries[""]
    assert "TextClassifier" in entries["fits"]
    refused = next(entry for entry in entries["fits not"] if entry.startswith("TextEmbedder: "))
    assert "computes 'logits'" in refused


def test_inspect_takes_the_name_of_a_starter(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["inspect", "intents-clinc150"])
    out = capsys.readouterr().out
    assert "150: " in out
    assert out.splitlines()[0].endswith("intents-clinc150")


def test_inspect_refuses_what_is_no_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for source, expected in [
        ("intents-clink150", "Did you mean 'intents-clinc150'?"),
        (str(tmp_path), "has no config.json"),
    ]:
        with pytest.raises(SystemExit) as stopped:
            cli.main(["inspect", source])
        assert stopped.value.code == cli.REFUSED
        assert expected in capsys.readouterr().err


def test_optimize_without_a_precision_names_them(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["optimize", "intents-clinc150"])
    assert stopped.value.code == cli.REFUSED
    assert "give at least one of '--int8', '--int8w', '--int4'" in capsys.readouterr().err


def test_command_without_pyspark_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "pyspark.py").write_text("raise ImportError('no pyspark here')")
    run = subprocess.run(
        [sys.executable, "-c", "from sparktasks.cli import main; main(['tasks'])"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])},
    )
    assert run.returncode == cli.REFUSED
    assert "pip install 'sparktasks[local]'" in run.stderr
    assert "Traceback" not in run.stderr


def test_settings_of_the_session_are_written_as_spark_reads_them(tmp_path: Path) -> None:
    job = load_job(
        write_job(
            tmp_path,
            spark=LOCAL | {"config": {"spark.ui.enabled": False, "spark.sql.shuffle.partitions": 8}},
            stages=STAGES[:1],
        )
    )
    assert _settings(job) == {"spark.ui.enabled": "false", "spark.sql.shuffle.partitions": "8"}
    assert yaml.safe_load((tmp_path / "job.yaml").read_text())["spark"]["config"]["spark.ui.enabled"] is False


def test_a_session_of_its_own_takes_batches_that_suit_the_slowest_stage(tmp_path: Path) -> None:
    setting = "spark.sql.execution.arrow.maxRecordsPerBatch"
    assert _defaults(load_job(write_job(tmp_path))) == {setting: "1000"}
    light = write_job(tmp_path, stages=[{"DocumentAssembler": {"inputCol": "text"}}])
    assert _defaults(load_job(light)) == {setting: "10000"}


def test_settings_that_a_running_session_has_in_another_case_are_not_missed(
    spark: SparkSession, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = {"spark.log.level": "error", "spark.ui.enabled": "False", "spark.sql.shuffle.partitions": 7}
    with session_of(load_job(write_job(tmp_path, spark={"config": config}))) as running:
        assert running.conf.get("spark.sql.shuffle.partitions") == "2"
    [line] = capsys.readouterr().err.splitlines()
    assert line.endswith("were left out, set them there: spark.sql.shuffle.partitions")
