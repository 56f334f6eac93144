"""Columnar writers: what they write equals what is built annotation by annotation."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from sparktasks.errors import DataError
from sparktasks.kernels.columns import Annotation, Annotations, build
from sparktasks.kernels.text.tokens import FindTokens
from sparktasks.kernels.writers import filter_annotations, map_words, write_errors, write_spans
from sparktasks.ops.patterns import Pattern

ROWS = [
    [Annotation("document", 0, 10, "Hello World", {"sentence": "0"}), Annotation("document", 12, 15, "a  b", {})],
    [],
    [Annotation("document", 0, -1, None, {"error": "DataError: broken", "sentence": "3"})],
    [Annotation("document", 3, 3, "é", {"sentence": "1"}), Annotation("document", 5, 4, "", {"sentence": "2"})],
]


def expected(kernel: FindTokens, rows: list[list[Annotation]]) -> list[list[Annotation]]:
    """Return what `FindTokens` must write, with one Python object for each token."""
    found = []
    for row in rows:
        tokens = []
        for document in row:
            metadata = {key: value for key, value in document.metadata.items() if key == "sentence"}
            if document.result is None:
                tokens.append(Annotation("token", document.begin, document.end, None, document.metadata))
                continue
            spans = [match.span() for match in re.finditer(kernel.pattern.source, document.result)]
            if kernel.gaps:
                stops = [0, *[end for _, end in spans]]
                spans = list(zip(stops, [*[begin for begin, _ in spans], len(document.result)], strict=True))
            for begin, end in spans:
                if end - begin >= kernel.shortest and end - begin <= (kernel.longest or 10**9):
                    word = document.result[begin:end]
                    first = document.begin + begin
                    result = word.lower() if kernel.lower else word
                    tokens.append(Annotation("token", first, first + len(word) - 1, result, metadata))
        found.append(tokens)
    return found


@pytest.mark.parametrize("gaps", [True, False])
@pytest.mark.parametrize("bounds", [(1, None), (2, 5)])
@pytest.mark.parametrize("pattern", [r"\s+", r"\w+|[^\w\s]", r"\w+(?:['’]\w+)*", r"(\w)\w*", r"a*", r"[aeiou]"])
def test_tokens_equal_those_found_one_by_one(pattern: str, bounds: tuple[int, int | None], gaps: bool) -> None:
    texts = json.loads((Path(__file__).parents[1] / "data" / "texts.json").read_text(encoding="utf-8"))
    strings = [text for text in texts["texts"] if text]
    rows = [*ROWS, *[[Annotation("document", 0, len(text) - 1, text, {"sentence": "0"})] for text in strings]]
    kernel = FindTokens(
        pattern=Pattern(pattern, 10.0), gaps=gaps, lower=True, shortest=bounds[0], longest=bounds[1], fails=False
    )
    assert len(strings) > 10
    assert Annotations(kernel(build(rows))).by_row() == expected(kernel, rows)


@pytest.mark.parametrize("pattern", [r"(a+)+b", r"(a|aa)+$", r"a+b"])
@pytest.mark.parametrize("fails", [True, False])
def test_a_pattern_that_never_ends_is_an_error_of_its_row(pattern: str, fails: bool) -> None:
    slow = "a" * 60_000 + "c b"
    rows = [[Annotation("document", 0, len(text) - 1, text, {"sentence": "0"})] for text in ("ab", slow, "a b")]
    kernel = FindTokens(pattern=Pattern(pattern, 0.2), gaps=False, lower=False, shortest=1, longest=None, fails=fails)
    if fails:
        with pytest.raises(DataError, match=r"takes more than 0\.2 seconds over this text"):
            kernel(build(rows))
        return
    first, second, third = Annotations(kernel(build(rows))).by_row()
    assert [token.result for token in first] == [match[0] for match in re.finditer(pattern, "ab")]
    assert second[0].result is None
    assert second[0].metadata["sentence"] == "0"
    assert "takes more than 0.2 seconds" in str(second[0].error)
    assert [token.result for token in third] == [match[0] for match in re.finditer(pattern, "a b")]


def test_spans_carry_their_parents_sentence_and_offset() -> None:
    source = Annotations(build(ROWS))
    parents, begin, end = np.array([0, 0, 1]), np.array([0, 6, 3]), np.array([5, 11, 4])
    column = write_spans("chunk", source, parents, begin, end, pa.array(["Hello", "World", "b"]))
    assert Annotations(column).by_row() == [
        [
            Annotation("chunk", 0, 4, "Hello", {"sentence": "0"}),
            Annotation("chunk", 6, 10, "World", {"sentence": "0"}),
            Annotation("chunk", 15, 15, "b", {}),
        ],
        [],
        [],
        [],
    ]


def test_errors_come_last_in_their_row() -> None:
    source = Annotations(build(ROWS))
    column = write_spans("token", source, np.array([1, 3]), np.zeros(2, int), np.ones(2, int), pa.array(["a", "é"]))
    rows = Annotations(write_errors("token", source, column, {0: "DataError: no"}, fails=False)).by_row()
    assert [[token.error or token.result for token in row] for row in rows] == [
        ["a", "DataError: no"],
        [],
        ["DataError: broken"],
        ["é"],
    ]
    assert rows[0][1] == Annotation("token", 0, 10, None, {"sentence": "0", "error": "DataError: no"})


def test_words_are_mapped_once_each_and_other_fields_stay() -> None:
    calls = []

    def shortened(word: str) -> str | None:
        calls.append(word)
        return None if word == "the" else word[:2]

    vector = np.array([1.0], np.float32)
    row = [
        Annotation("token", 0, 2, "the", {"sentence": "0"}),
        Annotation("token", 4, 8, "house", {"sentence": "0", "k": "v"}, vector, 0.5),
        Annotation("token", 10, 14, "house", {}),
        Annotation("token", 16, 17, None, {"error": "x"}),
    ]
    mapped = Annotations(map_words("token", Annotations(build([row, []])), shortened)).by_row()
    assert sorted(calls) == ["house", "the"]
    assert mapped[1] == []
    assert [(token.begin, token.result, token.metadata, token.score) for token in mapped[0]] == [
        (4, "ho", {"sentence": "0", "k": "v"}, 0.5),
        (10, "ho", {}, None),
        (16, None, {"error": "x"}, None),
    ]
    assert mapped[0][0].embeddings is not None


def test_annotations_are_filtered_and_errors_stay() -> None:
    source = Annotations(build(ROWS))
    kept = pa.array([False, True, False, None, True])
    rows = Annotations(filter_annotations("document", source, kept)).by_row()
    assert [[annotation.result for annotation in row] for row in rows] == [["a  b"], [], [None], [""]]
