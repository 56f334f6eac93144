"""TextEmbedder against the formulas of sentence-transformers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tiny_bundles.text_encoders import BY_NAME, EMBEDDING, SPECS, Spec
from tiny_bundles.text_oracles import EmbeddingOracle

from sparktasks import DocumentAssembler, LocalPipeline, TextEmbedder

from .compare import assert_all
from .conftest import Bundles

pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::DeprecationWarning"
)  # of torch and its exporter
NAMES = [spec.name for spec in SPECS if spec.task == EMBEDDING]
TOLERANCE = 1e-5
POOLINGS = {"mean": "mean", "cls": "cls", "max": "max", "last": "lasttoken"}  # our names, sentence-transformers' names


def embed(bundles: Bundles, name: str, texts: list[str], **params: object) -> list[np.ndarray]:
    """Return the vector that TextEmbedder gives each text."""
    stage = TextEmbedder.pretrained(str(bundles.folder(name)), inputCols=["document"], outputCol="out", **params)
    rows = LocalPipeline([DocumentAssembler(inputCol="text", outputCol="document"), stage]).fullAnnotate(texts)
    assert {len(row["out"]) for row in rows} == {1}
    return [np.asarray(row["out"][0].embeddings) for row in rows]


def expected(bundles: Bundles, spec: Spec, texts: list[str]) -> list[np.ndarray]:
    """Return the oracle's vector of each text."""
    return EmbeddingOracle(bundles.twin(spec.name), spec).vectors(texts)


def same_vector(want: np.ndarray, got: np.ndarray) -> bool:
    """Tell whether two vectors are equal but for float noise."""
    return want.shape == got.shape and bool(np.allclose(got, want, rtol=TOLERANCE, atol=TOLERANCE))


@pytest.mark.parametrize("name", NAMES)
def test_text_embedder_equals_sentence_transformers(name: str, bundles: Bundles, texts: list[str]) -> None:
    found = embed(bundles, name, texts)
    assert_all(texts, expected(bundles, BY_NAME[name], texts), found, same_vector)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_text_embedder_pools_as_asked(pooling: str, normalize: bool, bundles: Bundles, texts: list[str]) -> None:
    some = texts[::4]
    found = embed(bundles, "bert-embedding-mean", some, pooling=pooling, normalize=normalize)
    spec = replace(BY_NAME["bert-embedding-mean"], pooling=POOLINGS[pooling], normalize=normalize)
    assert_all(some, expected(bundles, spec, some), found, same_vector)
