"""What users hand to LocalPipeline: typed as the stage reads it, never guessed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image

from sparktasks import DocumentAssembler, Finisher, LocalPipeline, WordsAssembler
from sparktasks.errors import ColumnError
from sparktasks.kernels.columns import TEXT, Annotation
from sparktasks.kernels.values import as_sequence, typed_array

STRING, STRINGS = pa.string(), pa.list_(pa.string())


@pytest.mark.parametrize(
    ("values", "dtypes", "expected"),
    [
        (["a", None, float("nan"), pd.NA, np.str_("x"), Path("/a/b")], [STRING], ["a", None, None, None, "x", "/a/b"]),
        (
            [np.array(["a", "b"]), ("c",), pd.Series(["d"]), iter("ef")],
            [STRING, STRINGS],
            [["a", "b"], ["c"], ["d"], ["e", "f"]],
        ),
        ([np.float32(1.5), 2], [STRING, pa.int64(), pa.float64()], [1.5, 2.0]),
        ([np.int16(3), None], [pa.int64()], [3, None]),
        (["a\ud800b", "\ud83d\ude00", ["x"][0]], [STRING], ["a\ufffdb", "\ufffd\ufffd", "x"]),
        ([[0.5, 1], []], [pa.list_(pa.float32())], [[0.5, 1.0], []]),
        ([bytearray(b"ab"), b"", None], [pa.binary()], [b"ab", b"", None]),
        (
            [{"role": "user", "more": 1}],
            [pa.struct([("role", STRING), ("content", STRING)])],
            [{"role": "user", "content": None}],
        ),
        ([], [STRING], []),
    ],
)
def test_values_become_the_type_that_is_read(values: list[Any], dtypes: list[Any], expected: list[Any]) -> None:
    assert typed_array(values, dtypes, "who").to_pylist() == expected


@pytest.mark.parametrize("value", [5, b"x", True, {"a": 1}, 2.5, [5], ["a", b"b"]])
def test_other_values_are_refused_by_name(value: Any) -> None:
    with pytest.raises(
        ColumnError, match=r"LocalPipeline: the column 'text' expects a string or a list of strings, not"
    ):
        LocalPipeline([DocumentAssembler()]).annotate(["fine", {"text": value}])


def test_pictures_are_one_input_and_become_png() -> None:
    picture = Image.new("RGB", (3, 2), "red")
    assert as_sequence(picture) is None
    (png,) = typed_array([picture], [pa.binary()], "who").to_pylist()
    assert png.startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "data", [["a", "b"], ("a", "b"), np.array(["a", "b"]), pd.Series(["a", "b"]), (x for x in "ab")]
)
def test_several_inputs_come_in_any_sequence(data: Any) -> None:
    assert LocalPipeline([DocumentAssembler()]).annotate(data) == [{"document": ["a"]}, {"document": ["b"]}]


@pytest.mark.parametrize("text", [None, float("nan"), pd.NA, ""])
def test_missing_texts_give_no_document(text: Any) -> None:
    local = LocalPipeline([DocumentAssembler()])
    assert local.annotate(text) == {"document": []}
    assert local.annotate(["a", text]) == [{"document": ["a"]}, {"document": []}]


def test_annotations_are_inputs_too() -> None:
    rows = [[Annotation("document", 0, 0, "a", {"k": "v"}, np.ones(2, np.float32), 0.5)], []]
    column = typed_array(rows, [TEXT.column], "who")
    assert column.type == TEXT.column
    assert column.to_pylist()[0][0]["metadata"] == [("k", "v")]
    finished = LocalPipeline([Finisher(values=["result", "score"])]).annotate({"document": rows[0]})
    assert finished == {"finished_document": ["a"], "finished_document_score": [0.5]}


def test_lists_of_words_are_not_taken_for_texts() -> None:
    with pytest.raises(ColumnError, match="the column 'words' expects a list of strings, not str: 'Do'"):
        LocalPipeline([WordsAssembler()]).annotate("Do")
