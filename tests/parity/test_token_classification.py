"""TokenClassifier against the token-classification pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import pytest
from tiny_bundles.text_encoders import BY_NAME, SPECS, TOKEN, UNBOUNDED
from tiny_bundles.text_oracles import Span, TokenOracle

from sparktasks import DocumentAssembler, LocalPipeline, TokenClassifier

from .compare import assert_all, same_spans, spans_of
from .conftest import Bundles

pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::DeprecationWarning"
)  # of torch and its exporter
NAMES = [spec.name for spec in SPECS if spec.task == TOKEN]
BOUNDED = [name for name in NAMES if BY_NAME[name].max_length < UNBOUNDED]
# The pipeline pads the windows of a text, which changes the answers of a leaking model; ours are those of each window
# alone.
WINDOWED = [name for name in BOUNDED if not BY_NAME[name].leaks]
STRATEGIES = ["none", "simple", "first", "average", "max"]
# Of each kind of tokenizer one, which every strategy is tried with on all texts; the others cut words in like ways.
KINDS = [f"{arch}-{TOKEN}" for arch in ("bert", "roberta", "modernbert", "xlm-roberta", "deberta-v2", "xlnet")]
WINDOWS = [
    (name, strategy) for name in WINDOWED for strategy in STRATEGIES[1:] if name in KINDS or strategy == "average"
]
MOST_TIES = 0.002

oracle_of = lru_cache(maxsize=2)(TokenOracle)


def annotate(bundles: Bundles, name: str, texts: list[str], **params: object) -> list[list[Span]]:
    """Return the spans that TokenClassifier finds in each text; chunks must read as the source does."""
    stage = TokenClassifier.pretrained(str(bundles.folder(name)), inputCols=["document"], outputCol="out", **params)
    rows = LocalPipeline([DocumentAssembler(inputCol="text", outputCol="document"), stage]).fullAnnotate(texts)
    for text, row in zip(texts, rows, strict=True):
        sliced = [item for item in row["out"] if item.annotatorType == "chunk"]
        assert [item.result for item in sliced] == [text[item.begin : item.end + 1] for item in sliced]
    return [spans_of(row["out"]) for row in rows]


def compare(
    texts: Sequence[str], oracle: TokenOracle, strategy: str, found: list[list[Span]], ignored: list[str] | None = None
) -> None:
    """Fail unless the spans are those of the oracle; a few texts may differ where two labels tie."""
    oracle.read(texts)
    expected = [(text, oracle.spans(text, strategy, ignored)) for text in texts]
    most = 1 + round(MOST_TIES * len(texts))
    unequal: list[str] = []

    def same(wanted: tuple[str, list[Span]], got: list[Span]) -> bool:
        text, want = wanted
        if same_spans(want, got):
            return True
        unequal.append(text)
        return len(unequal) <= most and any(
            same_spans(other, got) for other in oracle.spans_if_tied(text, strategy, ignored)
        )

    assert_all(texts, expected, found, same)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", NAMES)
def test_token_classifier_equals_transformers(name: str, strategy: str, bundles: Bundles, texts: list[str]) -> None:
    every_text = name in KINDS or strategy in ("none", "first")
    some = texts if every_text and name in BOUNDED else texts[::3]  # whole long texts are slow
    found = annotate(bundles, name, some, aggregation=strategy, longText="truncate")
    assert sum(map(len, found)) > len(some)
    compare(some, oracle_of(bundles.twin(name)), strategy, found)


@pytest.mark.parametrize(("name", "strategy"), WINDOWS)
def test_token_classifier_windows_equal_transformers(
    name: str, strategy: str, bundles: Bundles, texts: list[str]
) -> None:
    longest = sorted(texts, key=len)[-100::2]
    found = annotate(bundles, name, longest, aggregation=strategy, longText="window", stride=16)
    compare(longest, oracle_of(bundles.twin(name), 16), strategy, found)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_token_classifier_ignores_the_labels_asked_for(strategy: str, bundles: Bundles, texts: list[str]) -> None:
    name, ignored = "bert-token-classification", ["PER", "B-PER", "I-LOC"]
    found = annotate(bundles, name, texts, aggregation=strategy, longText="truncate", ignoreLabels=ignored)
    assert any(label == "O" for spans in found for label, *_ in spans)
    compare(texts, oracle_of(bundles.twin(name)), strategy, found, ignored)
