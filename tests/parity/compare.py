"""Comparison of our annotations with the oracle's records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from tiny_bundles.text_oracles import LabelScore, Span

SCORE = 1e-4
TIE = 1e-5


def assert_all(
    texts: Sequence[Any], expected: Sequence[Any], found: Sequence[Any], same: Callable[[Any, Any], bool]
) -> None:
    """Fail with a count and the first differing text unless every pair of answers is the same."""
    assert len(found) == len(expected) == len(texts)
    wrong = [(text, want, got) for text, want, got in zip(texts, expected, found, strict=True) if not same(want, got)]
    if wrong:
        pytest.fail(f"{len(wrong)} of {len(texts)} texts differ; the first:\n" + describe(*wrong[0]))


def describe(text: Any, want: Any, got: Any) -> str:
    """Return one difference in three lines."""
    return f"text     {text!r}\nexpected {want!r}\nfound    {got!r}"


def labels_of(annotations: Sequence[Any]) -> list[LabelScore]:
    """Return label and score of category annotations."""
    return [(annotation.result, annotation.score) for annotation in annotations]


def same_labels(want: list[LabelScore], got: list[LabelScore]) -> bool:
    """Tell whether both lists have the same labels and scores, best first; labels that tie may swap."""
    found = dict(got)
    descending = all(first >= second for (_, first), (_, second) in pairwise(got))
    close = (
        set(found) == set(dict(want))
        and len(got) == len(want)
        and all(abs(found[label] - score) <= SCORE for label, score in want)
    )
    tied = len(want) > 1 and want[0][1] - want[1][1] < TIE
    return descending and close and (tied or want[0][0] == got[0][0])


def spans_of(annotations: Sequence[Any]) -> list[Span]:
    """Return label, start, exclusive end and score of chunk or named_entity annotations."""
    return [
        (
            item.metadata["entity"] if item.annotatorType == "chunk" else item.result,
            item.begin,
            item.end + 1,
            item.score,
        )
        for item in annotations
    ]


def same_spans(want: list[Span], got: list[Span]) -> bool:
    """Tell whether both lists have the same labels, places and scores in the same order."""
    return [span[:3] for span in want] == [span[:3] for span in got] and all(
        abs(first[3] - second[3]) <= SCORE for first, second in zip(want, got, strict=True)
    )
