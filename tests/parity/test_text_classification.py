"""TextClassifier against the text-classification pipeline."""

from __future__ import annotations

import pytest
from tiny_bundles.text_encoders import BY_NAME, SPECS, TEXT
from tiny_bundles.text_oracles import LabelScore, text_labels

from sparktasks import DocumentAssembler, LocalPipeline, TextClassifier

from .compare import assert_all, labels_of, same_labels
from .conftest import Bundles
from .texts import Pair

pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::DeprecationWarning"
)  # of torch and its exporter
NAMES = [spec.name for spec in SPECS if spec.task == TEXT]


def classify(bundles: Bundles, name: str, texts: list[str], **params: object) -> list[list[LabelScore]]:
    """Return the labels that TextClassifier gives each text."""
    stage = TextClassifier.pretrained(
        str(bundles.folder(name)), inputCols=["document"], outputCol="out", topK=None, **params
    )
    rows = LocalPipeline([DocumentAssembler(inputCol="text", outputCol="document"), stage]).fullAnnotate(texts)
    return [labels_of(row["out"]) for row in rows]


def classify_pairs(bundles: Bundles, name: str, pairs: list[Pair]) -> list[list[LabelScore]]:
    """Return the labels that TextClassifier gives each pair."""
    columns = ["document", "pair_document"]
    stages = [
        DocumentAssembler(inputCols=["text", "pair"], outputCols=columns),
        TextClassifier.pretrained(str(bundles.folder(name)), inputCols=columns, outputCol="out", topK=None),
    ]
    rows = LocalPipeline(stages).fullAnnotate([{"text": first, "pair": second} for first, second in pairs])
    return [labels_of(row["out"]) for row in rows]


@pytest.mark.parametrize("name", NAMES)
def test_text_classifier_equals_transformers(name: str, bundles: Bundles, texts: list[str]) -> None:
    some = texts[::3] if BY_NAME[name].pads else texts  # whose networks and texts are those of another bundle
    found = classify(bundles, name, some)
    assert_all(some, text_labels(bundles.twin(name), some), found, same_labels)


@pytest.mark.parametrize("name", NAMES)
def test_text_classifier_equals_transformers_on_pairs(name: str, bundles: Bundles, pairs: list[Pair]) -> None:
    found = classify_pairs(bundles, name, pairs)
    assert_all(pairs, text_labels(bundles.twin(name), pairs), found, same_labels)


@pytest.mark.parametrize("function", ["softmax", "sigmoid", "none"])
@pytest.mark.parametrize(
    "name", ["bert-text-classification", "roberta-text-classification", "distilbert-text-classification"]
)
def test_text_classifier_applies_the_function_asked_for(
    name: str, function: str, bundles: Bundles, texts: list[str]
) -> None:
    some = texts[::10]
    found = classify(bundles, name, some, functionToApply=function)
    assert_all(some, text_labels(bundles.twin(name), some, function_to_apply=function), found, same_labels)
