"""The decoding of token labels against seqeval, the field's evaluation library."""

from __future__ import annotations

import random

import pytest
from seqeval.metrics.sequence_labeling import get_entities

from sparktasks.ops.spans import chunks

SCHEMES = {"IOB": "IOB", "IOE": "IOE", "BIOES": "BIOES", "mixed": "BIOES"}


def sequences(scheme: str, count: int) -> list[list[str]]:
    """Return random label sequences, most of them broken ones, seeded."""
    rng = random.Random(scheme)
    labels = ["O", *(f"{tag}-{kind}" for tag in SCHEMES[scheme] if tag != "O" for kind in ("PER", "LOC"))]
    return [[rng.choice(labels) for _ in range(rng.randrange(1, 15))] for _ in range(count)]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_chunks_equal_seqeval(scheme: str) -> None:
    for labels in sequences(scheme, 2000):
        assert chunks(labels) == get_entities(labels), labels


def test_bilou_is_read_as_bioes() -> None:
    rename = str.maketrans("ES", "LU")
    for labels in sequences("BIOES", 500):
        bilou = [label[0].translate(rename) + label[1:] for label in labels]
        assert chunks(bilou) == get_entities(labels), bilou
