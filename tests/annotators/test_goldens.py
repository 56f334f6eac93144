"""The committed bundles against answers recorded from transformers 4.57.6 (scripts/make_tiny_bundles.py
--committed)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparktasks import Annotation, DocumentAssembler, LocalPipeline, TextClassifier, TextEmbedder, TokenClassifier
from sparktasks.spark.annotator import Annotator

TESTS = Path(__file__).parent.parent
INPUTS = json.loads((TESTS / "data" / "texts.json").read_text(encoding="utf-8"))
GOLDENS = {
    path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted((TESTS / "goldens").glob("*.json"))
}


def cases(task: str) -> list[Any]:
    """Return (bundle, section) for every recorded section of a task."""
    found = [
        (name, section)
        for name, golden in GOLDENS.items()
        if golden["task"] == task
        for section in golden
        if isinstance(golden[section], dict)
    ]
    assert found
    return found


def annotate(stages: list[Annotator], rows: list[Any]) -> list[list[Annotation]]:
    return [row["out"] for row in LocalPipeline(stages).fullAnnotate(rows)]


def folder(name: str) -> Path:
    return TESTS / "bundles" / name


@pytest.mark.parametrize(("name", "section"), cases("text-classification"))
def test_text_classifier_gives_transformers_labels(name: str, section: str) -> None:
    golden = GOLDENS[name][section]
    assert len(golden) == len(INPUTS[section])
    if section == "pairs":
        assemblers: list[Annotator] = [
            DocumentAssembler(inputCols=["text", "text_pair"], outputCols=["document", "pair"])
        ]
        columns = ["document", "pair"]
    else:
        assemblers, columns = [DocumentAssembler()], ["document"]
    classifier = TextClassifier.pretrained(folder(name), inputCols=columns, outputCol="out", topK=None)
    inputs = [INPUTS[section][key] for key in golden]
    rows = [dict(zip(("text", "text_pair"), pair, strict=True)) for pair in inputs] if section == "pairs" else inputs
    found = annotate([*assemblers, classifier], rows)
    for key, annotations in zip(golden, found, strict=True):
        assert [annotation.result for annotation in annotations] == [label for label, _ in golden[key]], key
        assert [annotation.score for annotation in annotations] == pytest.approx(
            [score for _, score in golden[key]], abs=1e-4
        ), key


@pytest.mark.parametrize(("name", "section"), cases("token-classification"))
def test_token_classifier_gives_transformers_spans(name: str, section: str) -> None:
    golden = GOLDENS[name][section]
    strategy, _, stride = section.partition("_stride_")
    params = {"longText": "window", "stride": int(stride)} if stride else {"longText": "truncate"}
    classifier = TokenClassifier.pretrained(folder(name), outputCol="out", aggregation=strategy, **params)
    found = annotate([DocumentAssembler(), classifier], [INPUTS["texts"][key] for key in golden])
    for key, annotations in zip(golden, found, strict=True):
        spans = [(a.metadata.get("entity", a.result), a.begin, a.end + 1) for a in annotations]
        assert spans == [tuple(span[:3]) for span in golden[key]], key
        assert [a.score for a in annotations] == pytest.approx([span[3] for span in golden[key]], abs=1e-4), key


@pytest.mark.parametrize(("name", "section"), cases("embedding"))
def test_text_embedder_gives_the_pooled_vectors(name: str, section: str) -> None:
    golden = GOLDENS[name][section]
    embedder = TextEmbedder.pretrained(
        folder(name), outputCol="out", promptName=section.removeprefix("prompt_") if section != "texts" else None
    )
    found = annotate([DocumentAssembler(), embedder], [INPUTS["texts"][key] for key in golden])
    for key, annotations in zip(golden, found, strict=True):
        assert np.abs(np.array(annotations[0].embeddings) - np.array(golden[key])).max() < 1e-5, key
