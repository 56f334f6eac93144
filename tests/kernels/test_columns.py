"""Annotation columns: kinds, empty fields, and the columns that JVM annotators wrote."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from sparktasks.errors import ColumnError
from sparktasks.kernels.arrow import numbers, strings
from sparktasks.kernels.columns import (
    AUDIO,
    IMAGE,
    KINDS,
    TEXT,
    Annotation,
    Annotations,
    FlatColumn,
    assemble,
    build,
    kind_of,
    split,
)
from sparktasks.kernels.offsets import has_astral

TEXTS = ["naïve 😀 café. Two 👩‍👩‍👧 roads!", "plain text", "😀😀", "a 🇵🇹 b c"]


def utf16(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


def jvm(text: str, words: list[str], kind: str = "token") -> list[Annotation]:
    """Return what a JVM annotator writes for these words of a text."""
    annotations = []
    start = 0
    for word in words:
        start = text.index(word, start)
        begin = utf16(text[:start])
        result = "B-X" if kind == "named_entity" else word
        metadata = {"sentence": "0", "word": word} if kind == "named_entity" else {"sentence": "0"}
        annotations.append(Annotation(kind, begin, begin + utf16(word) - 1, result, metadata))
        start += len(word)
    return annotations


def document(text: str, in_units: bool) -> Annotation:
    length = utf16(text) if in_units else len(text)
    return Annotation("document", 0, length - 1, text, {"sentence": "0"})


@pytest.mark.parametrize("kind", ["token", "named_entity"])
@pytest.mark.parametrize("in_units", [True, False], ids=["a JVM document", "a document of ours"])
@pytest.mark.parametrize("text", TEXTS)
def test_offsets_of_the_jvm_become_code_points(text: str, in_units: bool, kind: str) -> None:
    words = text.split()
    documents = Annotations(build([[document(text, in_units)], []]))
    tokens = Annotations(build([jvm(text, words, kind), []]), documents=documents)
    assert [text[begin : end + 1] for begin, end in zip(tokens.begin, tokens.end, strict=True)] == words
    assert documents.end == [len(text) - 1]


@pytest.mark.parametrize("text", TEXTS)
def test_offsets_of_ours_stay(text: str) -> None:
    words = text.split()
    annotations = []
    start = 0
    for word in words:
        start = text.index(word, start)
        annotations.append(Annotation("token", start, start + len(word) - 1, word, {}))
        start += len(word)
    for in_units in (True, False):
        documents = Annotations(build([[document(text, in_units)]]))
        tokens = Annotations(build([annotations]), documents=documents)
        assert tokens.begin == [annotation.begin for annotation in annotations]
        assert tokens.end == [annotation.end for annotation in annotations]


def test_sentences_of_the_jvm_are_converted_without_their_document() -> None:
    text = "One 😀 here. Two 😀😀 there. Three."
    parts = ["One 😀 here.", "Two 😀😀 there.", "Three."]
    sentences = Annotations(build([[], jvm(text, parts, "document")]))
    assert [text[begin : end + 1] for begin, end in zip(sentences.begin, sentences.end, strict=True)] == parts


def test_absent_fields_are_empty_and_never_null() -> None:
    column = build([[Annotation("token", 0, 1, "ab", {})], [Annotation("token", 0, 1, None, {"error": "x"})]])
    place = numbers([0], pa.int32())
    lone = assemble([1], strings(["token"]), place, place, strings(["ab"]))
    for found in (column, lone):
        struct = found.flatten()
        for name in ("metadata", "embeddings"):
            assert not struct.field(name).null_count
    assert [annotation.embeddings for annotation in Annotations(column)] == [None, None]


def test_columns_with_null_fields_and_without_score_are_read() -> None:
    struct = pa.struct([field for field in TEXT.struct if field.name != "score"])
    row = {"annotatorType": "token", "begin": 0, "end": 1, "result": "ab", "metadata": None, "embeddings": None}
    column = pa.array([[row], None], pa.list_(struct))
    assert Annotations(column).by_row() == [[Annotation("token", 0, 1, "ab", {})], []]


def test_vectors_are_kept_beside_annotations_without_one() -> None:
    vector = np.array([1.0, 2.0], np.float32)
    rows = [[Annotation("document", 0, 0, "a", {}, vector, 0.5), Annotation("document", 0, 0, None, {"error": "x"})]]
    first, second = Annotations(build(rows)).by_row()[0]
    assert (first.embeddings == vector).all()
    assert second.embeddings is None


def test_every_kind_is_known_by_its_fields() -> None:
    assert {kind_of(kind.column) for kind in KINDS.values()} == {TEXT, IMAGE, AUDIO}
    for kind in (TEXT, IMAGE, AUDIO):
        assert kind_of(kind.column) is kind
    assert kind_of(pa.list_(pa.string())) is None
    assert kind_of(pa.list_(pa.struct([("role", pa.string())]))) is None


def test_a_fault_of_a_picture_is_told_by_its_metadata() -> None:
    rows = [
        {"annotatorType": "image", "origin": "/a.png", "result": None, "metadata": []},
        {"annotatorType": "image", "origin": "/b.png", "result": None, "metadata": [("error", "DataError: broken")]},
    ]
    assert FlatColumn(pa.array([rows], IMAGE.column)).faults.tolist() == [False, True]


def test_other_columns_are_refused() -> None:
    with pytest.raises(ColumnError, match="an annotation column is expected, not string"):
        FlatColumn(pa.array(["a"]))
    with pytest.raises(ColumnError, match="a text column is expected"):
        Annotations(pa.array([[]], IMAGE.column))


def test_astral_characters_are_seen() -> None:
    assert has_astral(pa.array(["a", "😀"]))
    assert not has_astral(pa.array(["é", "東京", None]))
    assert not has_astral(pa.array([], pa.string()))


def test_flat_lists_are_cut_by_lengths() -> None:
    assert split([1, 2, 3], [2, 0, 1]) == [[1, 2], [], [3]]
