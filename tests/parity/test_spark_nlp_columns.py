"""Columns that Spark NLP wrote (offsets in UTF-16 units) are read as our own of the same texts and tokens are."""

from __future__ import annotations

from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import IntegerType, StringType, StructField, StructType

from sparktasks import (
    DocumentAssembler,
    EntityMerger,
    Finisher,
    RegexTokenizer,
    Summarizer,
    TextClassifier,
    TextEmbedder,
    TextGenerator,
    TokenClassifier,
)
from sparktasks.spark.types import ANNOTATIONS, annotation_field

from .texts import ROOT, SHARED, needs_shared

BUNDLES = ROOT / "tests" / "bundles"
COLUMNS = ["words", "category", "entities"]
pytestmark = [needs_shared, pytest.mark.filterwarnings("ignore::UserWarning")]


def theirs(spark: SparkSession, name: str) -> DataFrame:
    return spark.read.parquet(str(SHARED / "data" / "spark_nlp" / "columns" / name))


def code_points(text: str, begin: int, end: int) -> tuple[int, int]:
    """Return a span of UTF-16 units, its end inclusive, in code points."""
    units = text.encode("utf-16-le")
    before = units[: 2 * begin].decode("utf-16-le", "ignore")
    whole = units[: 2 * (end + 1)].decode("utf-16-le", "ignore")
    return len(before), len(whole) - 1


def ours(spark: SparkSession, df: DataFrame, *names: str) -> DataFrame:
    """Return the same rows with our own document column, and these columns with offsets in code points."""
    rows = []
    for row in df.collect():
        cells: list[Any] = [row.id, row.text]
        for name in names:
            cell = []
            for item in row[name]:
                begin, end = code_points(row.text or "", item.begin, item.end)
                cell.append((item.annotatorType, begin, end, item.result, item.metadata, [], None))
            cells.append(cell)
        rows.append(cells)
    schema = StructType([StructField("id", IntegerType()), StructField("text", StringType())])
    for name in names:
        kind = df.schema[name].metadata["annotatorType"]
        schema = schema.add(annotation_field(name, kind))
    return DocumentAssembler().transform(spark.createDataFrame(rows, schema))


def cells(df: DataFrame, column: str) -> list[Any]:
    return [row[column] for row in df.orderBy("id").collect()]


def rounded(rows: list[Any]) -> list[Any]:
    """Return annotations as plain values, scores and vectors to four digits."""
    plain = []
    for row in rows:
        items = []
        for item in row:
            score = None if item.score is None else round(item.score, 4)
            vector = [round(value, 3) for value in item.embeddings]
            items.append((item.annotatorType, item.begin, item.end, item.result, dict(item.metadata), vector, score))
        plain.append(items)
    return plain


@pytest.mark.parametrize("adapter_name", ["auto", "pandas"])
def test_tokens_are_labelled_as_our_own_are(spark: SparkSession, adapter_name: str) -> None:
    spark.conf.set("spark.sparktasks.vectorized", adapter_name)
    try:
        df = theirs(spark, "words")
        stage = TokenClassifier.pretrained(
            BUNDLES / "bert-token-classification", inputCols=["document", "token"], outputCol="out"
        )
        labelled = cells(stage.transform(df), "out")
        assert rounded(labelled) == rounded(cells(stage.transform(ours(spark, df, "token")), "out"))
        texts = [row.text for row in df.orderBy("id").collect()]
        for text, row in zip(texts, labelled, strict=True):
            for item in row:
                assert text[item.begin : item.end + 1] == item.metadata["word"]
    finally:
        spark.conf.unset("spark.sparktasks.vectorized")


def test_entities_are_merged_as_our_own_are(spark: SparkSession) -> None:
    df = theirs(spark, "entities")
    stage = EntityMerger(inputCols=["document", "ner"], outputCol="out")
    merged = cells(stage.transform(df), "out")
    assert rounded(merged) == rounded(cells(stage.transform(ours(spark, df, "ner")), "out"))
    assert sum(map(len, merged)) >= 3
    for text, row in zip([row.text for row in df.orderBy("id").collect()], merged, strict=True):
        assert [item.result for item in row] == [text[item.begin : item.end + 1] for item in row]


@pytest.mark.parametrize("column", ["document", "sentence"])
@pytest.mark.parametrize(
    "stage",
    [
        TextClassifier.pretrained(BUNDLES / "bert-text-classification"),
        TokenClassifier.pretrained(BUNDLES / "bert-token-classification", aggregation="simple"),
        TextEmbedder.pretrained(BUNDLES / "bert-embedding-mean"),
        TextGenerator.pretrained(maxNewTokens=2),
        Summarizer(method="extractive", sentences=1),
        RegexTokenizer(pattern=r"\S+", gaps=False),
    ],
    ids=lambda stage: type(stage).__name__,
)
def test_documents_and_sentences_are_read_by_every_annotator(spark: SparkSession, stage: Any, column: str) -> None:
    df = theirs(spark, "words")
    if isinstance(stage, TextGenerator):
        # The JVM makes an empty document of an empty text, ours makes none: an empty prompt is one all the same.
        df = df.filter("length(text) > 0")
    stage = stage.copy().setParams(inputCols=[column], outputCol="out")
    out = stage.transform(df)
    assert out.schema["out"].dataType == ANNOTATIONS
    expected = stage.transform(ours(spark, df, *(["sentence"] if column == "sentence" else [])))
    assert rounded(cells(out, "out")) == rounded(cells(expected, "out"))


@pytest.mark.parametrize("name", COLUMNS)
def test_what_crosses_has_their_fields_in_their_order(spark: SparkSession, name: str) -> None:
    df = theirs(spark, name)
    for field in df.schema.fields:
        if "annotatorType" not in field.metadata:
            continue
        struct, own = field.dataType.elementType, ANNOTATIONS.elementType
        assert own.names[:6] == struct.names
        assert [own[name].dataType for name in struct.names] == [struct[name].dataType for name in struct.names]
        finished = Finisher(inputCols=field.name, values=["result", "begin", "end"], cleanAnnotations=False).transform(
            df
        )
        results = [[item.result for item in row] for row in cells(df, field.name)]
        assert cells(finished, f"finished_{field.name}") == results
