"""Assemblers, the tokenizer and the finisher."""

from __future__ import annotations

from typing import Any

import pytest
from pyspark.ml import PipelineModel
from pyspark.sql import SparkSession

from sparktasks import DocumentAssembler, Finisher, LocalPipeline, RegexTokenizer, WordsAssembler
from sparktasks.errors import ColumnError, ParamError
from sparktasks.spark.annotator import Annotator

MESSY = " a \t b\\nc\n\nd "
CLEANED = {
    "disabled": MESSY,
    "inplace": " a   b\\nc  d ",
    "inplace_full": " a   b c  d ",
    "shrink": "a b\\nc d",
    "shrink_full": "a b c d",
    "each": " a \t b\\nc \nd ",
    "each_full": " a \t b c \nd ",
    "delete_full": "a \t bc\n\nd",
}


@pytest.mark.parametrize("mode", CLEANED)
def test_cleanup_modes(mode: str) -> None:
    found = LocalPipeline([DocumentAssembler(cleanupMode=mode)]).fullAnnotate(MESSY)["document"][0]
    assert (found.result, found.begin, found.end) == (CLEANED[mode], 0, len(CLEANED[mode]) - 1)


def test_arrays_give_one_document_per_element(spark: SparkSession) -> None:
    df = spark.createDataFrame([(["a b", None, "", "c"],), ([],), (None,)], "text array<string>")
    found = [row["document"] for row in DocumentAssembler().transform(df).collect()]
    assert [[(d.result, d.metadata["sentence"]) for d in row] for row in found] == [[("a b", "0"), ("c", "3")], [], []]


def test_several_columns_at_once() -> None:
    local = LocalPipeline([DocumentAssembler(inputCols=["title", "body"], outputCols=["t", "b"])])
    assert local.annotate({"title": "x", "body": None}) == {"t": ["x"], "b": []}
    with pytest.raises(ParamError, match="lists of equal length"):
        LocalPipeline([DocumentAssembler(inputCols=["title", "body"], outputCols=["t"])])


@pytest.mark.parametrize(
    ("params", "tokens"),
    [
        ({}, [("Don't", 1), ("PANIC!", 8)]),
        ({"pattern": r"\w+|[^\w\s]", "gaps": False}, [("Don", 1), ("'", 4), ("t", 5), ("PANIC", 8), ("!", 13)]),
        ({"toLowercase": True}, [("don't", 1), ("panic!", 8)]),
        ({"minLength": 6}, [("PANIC!", 8)]),
        ({"maxLength": 5}, [("Don't", 1)]),
        ({"pattern": "N|n"}, [(" Do", 0), ("'t  PA", 4), ("IC!", 11)]),
    ],
)
def test_regex_tokenizer(params: dict[str, Any], tokens: list[tuple[str, int]]) -> None:
    found = LocalPipeline([DocumentAssembler(), RegexTokenizer(**params)]).fullAnnotate(" Don't  PANIC!")["token"]
    assert [(token.result, token.begin) for token in found] == tokens
    assert all(token.end == token.begin + len(token.result) - 1 for token in found)


def test_broken_pattern_is_refused() -> None:
    with pytest.raises(ParamError, match="not a regular expression"):
        LocalPipeline([DocumentAssembler(), RegexTokenizer(pattern="(")])


def test_words_make_a_document_and_its_tokens() -> None:
    found = LocalPipeline([WordsAssembler()]).fullAnnotate({"words": ["Do", "n't", None, "", "é😀"]})
    text = found["document"][0].result
    assert text == "Do n't é😀"
    assert (
        [text[t.begin : t.end + 1] for t in found["token"]]
        == [t.result for t in found["token"]]
        == ["Do", "n't", "é😀"]
    )


FORMS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"finished_token": ["one", "two"]}),
    ({"outputAs": "first"}, {"finished_token": "one"}),
    ({"outputAs": "string", "separator": "|"}, {"finished_token": "one|two"}),
    ({"values": ["begin", "end"], "outputCols": ["at"]}, {"at_begin": [0, 4], "at_end": [2, 6]}),
    (
        {"values": ["score", "error", "embeddings"], "outputAs": "first"},
        dict.fromkeys([f"finished_token_{v}" for v in ("score", "error", "embeddings")]),
    ),
]


@pytest.mark.parametrize(("params", "expected"), FORMS)
def test_finisher_gives_plain_values(
    spark: SparkSession, params: dict[str, Any], expected: dict[str, Any], adapter: str
) -> None:
    stages = [DocumentAssembler(), RegexTokenizer(), Finisher(inputCols="token", **params)]
    df = spark.createDataFrame([("one two",), ("",)], "text string")
    full, empty = PipelineModel(stages).transform(df).drop("text").collect()
    assert full.asDict() == expected
    assert set(map(str, empty.asDict().values())) <= {"None", "[]"}
    assert LocalPipeline(stages).annotate("one two") == expected


def test_finisher_keeps_annotations_when_asked(spark: SparkSession) -> None:
    df = spark.createDataFrame([("one two",)], "text string")
    kept = PipelineModel([DocumentAssembler(), Finisher(cleanAnnotations=False)]).transform(df)
    assert kept.columns == ["text", "document", "finished_document"]


def test_finisher_refuses_strings_of_numbers(spark: SparkSession) -> None:
    with pytest.raises(ParamError, match="outputAs='string' writes"):
        LocalPipeline([DocumentAssembler(), Finisher(values=["score"], outputAs="string")])


@pytest.mark.parametrize(
    "stages",
    [
        [DocumentAssembler(inputCols=["a", "b"], outputCols=["x", "X"])],
        [WordsAssembler(outputCols=["x", "x"])],
        [
            DocumentAssembler(),
            RegexTokenizer(),
            Finisher(inputCols=["document", "token"], outputCols=["x", "x_score"], values=["result", "score"]),
        ],
    ],
)
def test_outputs_of_one_name_are_refused(stages: list[Annotator]) -> None:
    with pytest.raises(ParamError, match="columns of the same name"):
        LocalPipeline(stages)


def test_words_must_be_lists_and_chains_must_begin_with_an_assembler() -> None:
    with pytest.raises(ColumnError, match="expects a list of strings, not str"):
        LocalPipeline([WordsAssembler()]).annotate(["Do", "n't"])
    with pytest.raises(ColumnError, match="begin the pipeline with an assembler"):
        LocalPipeline([RegexTokenizer()]).annotate("text")


def test_assembler_refuses_numbers_and_names_what_fits(spark: SparkSession) -> None:
    df = spark.createDataFrame([(1, "a", ["b"])], "id int, text string, words array<string>")
    with pytest.raises(
        ColumnError,
        match=r"'id' is int, but string or array<string> is expected. Columns that would fit: 'text', 'words'",
    ):
        DocumentAssembler(inputCol="id").transform(df)
    with pytest.raises(
        ColumnError, match=r"'text' is string, but array<string> is expected. Columns that would fit: 'words'"
    ):
        WordsAssembler(inputCol="text").transform(df)
