"""What fusion promises: each kernel once per row, in one worker, whatever is done with the frame afterwards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pyspark.ml import PipelineModel
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F
from pyspark.sql.types import IntegerType, StringType, StructField, StructType

from sparktasks import DocumentAssembler, RegexTokenizer, TextClassifier, TextGenerator
from sparktasks.errors import ColumnError, ParamError
from sparktasks.spark.fusion import FUSE_SETTING
from sparktasks.spark.types import ANNOTATIONS
from sparktasks.spark.vectorized import ADAPTER_SETTING, adapter_of
from tests.counting import Log, Logger, pipeline


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "log")


ROWS = 200


def texts(spark: SparkSession, partitions: int = 1) -> DataFrame:
    return spark.range(0, ROWS, 1, partitions).select(
        "id", F.concat(F.lit("text "), "id").alias("text"), (F.col("id") % 4).alias("part")
    )


ACTIONS: dict[str, Callable[[DataFrame], object]] = {
    "select": lambda df: df.select("b.result").collect(),
    "select of two": lambda df: df.select("a.result", F.col("c")[0]["result"]).collect(),
    "filter on an output": lambda df: df.filter("b[0].result = 'text 7ab'").collect(),
    "explode": lambda df: df.select(F.explode("b.result")).collect(),
    "join": lambda df: df.join(
        df.sparkSession.range(ROWS).withColumnRenamed("id", "other"), F.col("id") == F.col("other")
    ).collect(),
    "window": lambda df: df.withColumn("n", F.row_number().over(Window.partitionBy("part").orderBy("id"))).collect(),
    "group": lambda df: df.groupBy(F.col("b")[0]["result"]).count().collect(),
    "count": lambda df: df.count(),
    "write": lambda df: df.write.format("noop").mode("overwrite").save(),
}


@pytest.mark.parametrize("action", ACTIONS)
def test_kernels_run_once_per_row_in_one_worker(spark: SparkSession, adapter: str, log: Log, action: str) -> None:
    df = texts(spark)
    ACTIONS[action](pipeline(log).fit(df).transform(df))
    wanted = {"select": "ab", "filter on an output": "ab", "explode": "ab", "group": "ab"}.get(action, "abc")
    counts = log.rows()
    assert all(counts[name] == ROWS for name in wanted)
    assert set(counts.values()) == {ROWS}
    assert log.workers() == 1


def test_kernels_run_once_per_row_when_written(spark: SparkSession, log: Log, tmp_path: Path) -> None:
    df = texts(spark)
    pipeline(log).fit(df).transform(df).write.parquet(str(tmp_path / "out"))
    assert log.rows() == {"a": ROWS, "b": ROWS, "c": ROWS}
    assert spark.read.parquet(str(tmp_path / "out")).count() == ROWS


def test_kernels_run_once_per_row_in_streaming(spark: SparkSession, log: Log, tmp_path: Path) -> None:
    texts(spark).write.parquet(str(tmp_path / "in"))
    stream = spark.readStream.schema("id long, text string, part long").parquet(str(tmp_path / "in"))
    out = pipeline(log).fit(stream).transform(stream).select("id", "b.result")
    query = (
        out.writeStream.format("parquet")
        .option("checkpointLocation", str(tmp_path / "checkpoint"))
        .trigger(availableNow=True)
    )
    query.start(str(tmp_path / "out")).awaitTermination()
    assert log.rows() == {"a": ROWS, "b": ROWS, "c": ROWS}
    assert spark.read.parquet(str(tmp_path / "out")).count() == ROWS
    assert log.workers() == 1


def test_one_worker_per_task_slot(spark: SparkSession, log: Log) -> None:
    df = texts(spark, partitions=4)
    pipeline(log).fit(df).transform(df).select("c", "b").collect()
    assert log.workers() <= 2


def test_filter_on_another_column_reaches_the_scan(spark: SparkSession, log: Log) -> None:
    df = texts(spark)
    found = pipeline(log).fit(df).transform(df).filter("id < 10").collect()
    assert len(found) == 10
    assert log.rows() == {"a": 10, "b": 10, "c": 10}


def test_filter_on_a_partition_column_prunes_partitions(spark: SparkSession, log: Log, tmp_path: Path) -> None:
    texts(spark).write.partitionBy("part").parquet(str(tmp_path / "in"))
    df = spark.read.parquet(str(tmp_path / "in"))
    out = pipeline(log).fit(df).transform(df).filter("part = 1")
    assert "PartitionFilters: [isnotnull(part" in out._jdf.queryExecution().executedPlan().toString()
    assert out.count() == ROWS // 4
    assert set(log.rows().values()) == {ROWS // 4}


def test_show_annotates_few_rows_of_a_large_partition(
    spark: SparkSession, log: Log, bundle: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    df = spark.range(0, 50_000, 1, 1).select(
        "id", F.repeat(F.concat(F.lit("a longer text with words "), "id"), 4).alias("text")
    )
    classifier = TextClassifier.pretrained(bundle("bert-text-classification"))
    stages = [DocumentAssembler(), Logger(outputCol="a", log=str(log.path)), RegexTokenizer(), classifier]
    out = PipelineModel(stages).transform(df)
    out.show(5)
    assert capsys.readouterr().out.count("a longer text") >= 5
    assert 0 < log.rows()["a"] <= 500


def test_cached_frame_is_not_run_again(spark: SparkSession, log: Log) -> None:
    df = texts(spark)
    cached = pipeline(log).fit(df).transform(df).cache()
    cached.count()
    before = log.rows()
    found = Logger(inputCols="c", outputCol="d", log=str(log.path)).transform(cached).select("d.result").collect()
    cached.unpersist()
    assert found[7][0] == ["text 7cd"]
    assert {name: count for name, count in log.rows().items() if name != "d"} == before


def test_fusion_can_be_turned_off(spark: SparkSession, log: Log) -> None:
    df = texts(spark)
    fused = pipeline(log).fit(df).transform(df).select("b.result", "c.result").collect()
    spark.conf.set(FUSE_SETTING, "false")
    try:
        assert pipeline(log).fit(df).transform(df).select("b.result", "c.result").collect() == fused
    finally:
        spark.conf.unset(FUSE_SETTING)


NAMES = [
    "plain",
    "with space",
    "a.b",
    "tick`s",
    "UPPER",
    "c0",
    "key",
    "日本",
    "sparktasks_0",
    "array",
    "a-b",
    "'quoted'",
]


@pytest.mark.parametrize("name", NAMES)
def test_any_column_name_is_read_and_written(spark: SparkSession, adapter: str, name: str) -> None:
    df = spark.createDataFrame([("one two",)], StructType([StructField(name, StringType())]))
    other = f"{name}.out"
    out = RegexTokenizer(inputCols=other, outputCol=f"{name} 2").transform(
        DocumentAssembler(inputCol=name, outputCol=other).transform(df)
    )
    assert out.columns == [name, other, f"{name} 2"]
    row = out.head()
    assert row is not None
    assert row[0] == "one two"
    assert [token.result for token in row[2]] == ["one", "two"]


def test_overwritten_columns_keep_what_was_bound_to_them(spark: SparkSession, adapter: str) -> None:
    df = spark.createDataFrame([(1, "one two", "x")], "id int, text string, other string")
    out = DocumentAssembler(inputCol="text", outputCol="document").transform(df)
    out = RegexTokenizer(outputCol="text").transform(out)  # overwrites the source that document reads
    out = DocumentAssembler(inputCol="other", outputCol="document").transform(
        out
    )  # overwrites an output that text reads
    out = RegexTokenizer(inputCols="document", outputCol="document").transform(out)  # input = output
    assert out.columns == ["id", "text", "other", "document"]
    assert out.schema["text"].metadata == {"annotatorType": "token"}
    row = out.head()
    assert row is not None
    assert [token.result for token in row["text"]] == ["one", "two"]
    assert [token.result for token in row["document"]] == ["x"]
    assert (row["id"], row["other"]) == (1, "x")


@pytest.mark.parametrize("sensitive", [True, False])
def test_names_compare_by_the_sessions_case_rule(spark: SparkSession, sensitive: bool) -> None:
    spark.conf.set("spark.sql.caseSensitive", str(sensitive).lower())
    try:
        df = spark.createDataFrame([("one two",)], "Text string")
        if sensitive:
            with pytest.raises(ColumnError, match="Did you mean 'Text'"):
                DocumentAssembler(inputCol="text").transform(df)
            assert DocumentAssembler(inputCol="Text", outputCol="text").transform(df).columns == ["Text", "text"]
        else:
            assert DocumentAssembler(inputCol="text", outputCol="TEXT").transform(df).columns == ["TEXT"]
    finally:
        spark.conf.unset("spark.sql.caseSensitive")


def test_duplicate_columns_pass_through(spark: SparkSession, adapter: str) -> None:
    schema = StructType(
        [StructField("text", StringType()), StructField("twice", IntegerType()), StructField("twice", IntegerType())]
    )
    df = spark.createDataFrame([("one", 1, 2)], schema)
    out = DocumentAssembler().transform(df)
    assert [tuple(row)[:3] for row in out.collect()] == [("one", 1, 2)]
    overwritten = RegexTokenizer(outputCol="text").transform(out)
    assert overwritten.columns == ["text", "twice", "twice", "document"]
    assert [tuple(row)[1:3] for row in overwritten.collect()] == [(1, 2)]
    with pytest.raises(ColumnError, match="ambiguous"):
        DocumentAssembler(inputCol="twice").transform(df)


def test_two_branches_of_one_frame_do_not_disturb_each_other(spark: SparkSession) -> None:
    out = DocumentAssembler().transform(spark.createDataFrame([("one two",)], "text string"))
    left, right = (
        RegexTokenizer(outputCol="left").transform(out),
        RegexTokenizer(outputCol="right", toLowercase=True).transform(out),
    )
    assert left.columns == ["text", "document", "left"]
    assert right.columns == ["text", "document", "right"]
    assert out.columns == ["text", "document"]


def test_frames_between_stages_start_a_new_chain(spark: SparkSession) -> None:
    out = DocumentAssembler().transform(spark.createDataFrame([("one two",), ("",)], "text string"))
    found = (
        RegexTokenizer()
        .transform(out.filter("size(document) > 0").withColumn("more", F.lit(1)))
        .select("token.result")
        .collect()
    )
    assert [row[0] for row in found] == [["one", "two"]]


def test_columns_that_lost_their_type_are_taken_with_a_warning(spark: SparkSession) -> None:
    out = DocumentAssembler().transform(spark.createDataFrame([("one two",)], "text string"))
    lost = out.select(F.coalesce("document", "document").alias("document"))
    assert lost.schema["document"].metadata == {}
    with pytest.warns(UserWarning, match="'document' lost its annotator type; taken for a column of type document"):
        found = RegexTokenizer().transform(lost)
    assert [token.result for token in found.head()["token"]] == ["one", "two"]  # type: ignore[index]


def test_columns_without_a_score_are_read(spark: SparkSession) -> None:
    """Spark NLP's columns have the six fields, and other element types for the same shape."""
    df = spark.sql(
        "select array(named_struct('annotatorType', 'document', 'begin', 0, 'end', 6, 'result', 'one two',"
        " 'metadata', map('sentence', '0'), 'embeddings', cast(array() as array<float>))) as document"
    )
    df = df.withMetadata("document", {"annotatorType": "document"})
    assert [token.result for token in RegexTokenizer().transform(df).head()["token"]] == ["one", "two"]  # type: ignore[index]


def test_output_column_has_the_annotation_type(spark: SparkSession, adapter: str) -> None:
    out = DocumentAssembler().transform(spark.createDataFrame([("one two",)], "text string"))
    assert out.schema["document"].dataType == ANNOTATIONS


def test_annotations_survive_the_way_through_spark(spark: SparkSession, adapter: str, log: Log) -> None:
    df = spark.createDataFrame([(0, "é 日本 😀"), (1, None), (2, "")], "id int, text string")
    row = RegexTokenizer().transform(DocumentAssembler().transform(df)).orderBy("id").collect()
    assert [tuple(token) for token in row[0]["token"]] == [
        ("token", begin, end, text, {"sentence": "0"}, [], None)
        for begin, end, text in [(0, 0, "é"), (2, 3, "日本"), (5, 5, "😀")]
    ]
    assert [row[1]["token"], row[2]["document"]] == [[], []]


def test_bytes_that_are_not_utf8_become_replacement_characters(
    spark: SparkSession, adapter: str, tmp_path: Path
) -> None:
    (tmp_path / "latin1.txt").write_bytes(b"caf\xe9 noir\nplain\n\xff\xfe 3\n")
    df = spark.read.text(str(tmp_path / "latin1.txt")).withColumnRenamed("value", "text").coalesce(1)
    out = RegexTokenizer().transform(DocumentAssembler().transform(df)).select("document.result", "token.result")
    assert [tuple(row) for row in out.collect()] == [
        (["caf\ufffd noir"], ["caf\ufffd", "noir"]),
        (["plain"], ["plain"]),
        (["\ufffd\ufffd 3"], ["\ufffd\ufffd", "3"]),
    ]
    template = TextGenerator.pretrained(promptTemplate="{text}", maxNewTokens=1)
    assert all(row.generation[0].result is not None for row in template.transform(df).collect())


@pytest.mark.parametrize("setting", ["ARROW", " Pandas "])
def test_settings_are_read_in_any_case(setting: str, spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = setting.strip().lower()
    spark.conf.set(ADAPTER_SETTING, setting)
    try:
        if wanted == "arrow" and not hasattr(F, "arrow_udf"):
            with pytest.raises(ParamError, match=r"needs Spark 4\.1"):
                adapter_of(spark.range(1))
        else:
            assert adapter_of(spark.range(1)) == wanted
    finally:
        spark.conf.unset(ADAPTER_SETTING)
