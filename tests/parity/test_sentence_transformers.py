"""TextEmbedder against the sentence-transformers library, on folders that the library itself wrote."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules as models
from torch import nn, no_grad

from sparktasks import DocumentAssembler, LocalPipeline, TextEmbedder

from .compare import assert_all
from .conftest import Bundles

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
TOLERANCE = 2e-5
SIZE = 32
PROMPTS = {"query": "Represent the question: ", "document": "passage: "}


@dataclass(frozen=True)
class Case:
    """A chain of modules, how it is saved, how the stage is made, and how the library is asked for the same."""

    bundle: str
    pooling: Any = "mean"
    modules: Callable[[int], list[Any]] = lambda width: []
    pooling_options: Mapping[str, Any] = field(default_factory=dict)
    transformer: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    encode: Mapping[str, Any] = field(default_factory=dict)
    rewrite: Callable[[Path], None] = lambda folder: None


def dense(width: int) -> list[Any]:
    """Return a head of every kind of module that is done here."""
    return [
        models.Dense(width, 24),
        models.Dropout(0.5),
        models.LayerNorm(24),
        models.Dense(24, 16, bias=False, activation_function=nn.GELU()),
        models.Normalize(),
    ]


def old_names(folder: Path) -> None:
    """Write the files as versions of 2020 did: flags for poolings, another name for the transformer's file, other
    folders."""
    (folder / "1_Pooling").rename(folder / "9_Pooling")
    flags = {
        "word_embedding_dimension": SIZE,
        "pooling_mode_cls_token": False,
        "pooling_mode_mean_tokens": True,
        "pooling_mode_max_tokens": True,
    }
    write(folder / "9_Pooling/config.json", flags)
    modules = json.loads((folder / "modules.json").read_text())
    modules[1]["path"] = "9_Pooling"
    write(folder / "modules.json", modules)
    (folder / "sentence_bert_config.json").unlink()
    write(folder / "sentence_roberta_config.json", {"max_seq_length": 20, "do_lower_case": False})


def too_long(folder: Path) -> None:
    """Say more tokens than the model has positions, as RoBERTa-like folders do (514)."""
    write(folder / "sentence_bert_config.json", {"max_seq_length": 66, "do_lower_case": False})


def write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


CASES = {
    "mean, scaled": Case("bert-embedding-mean", modules=lambda width: [models.Normalize()]),
    "cls": Case("mpnet-embedding-mean", "cls"),
    "max": Case("roberta-embedding-mean", "max"),
    "last token": Case("deberta-embedding-lasttoken", "lasttoken"),
    "square root of the length": Case("roberta-embedding-mean", "mean_sqrt_len_tokens"),
    "weighted": Case("roberta-embedding-mean", "weightedmean"),
    "three poolings joined": Case("bert-embedding-mean", ("max", "cls", "weightedmean")),
    "modules behind": Case("roberta-embedding-mean", modules=dense),
    "small letters": Case("roberta-embedding-mean", transformer={"do_lower_case": True}),
    "shorter texts": Case("roberta-embedding-mean", transformer={"max_seq_length": 12}),
    "a default prompt": Case("roberta-embedding-mean", model={"prompts": PROMPTS, "default_prompt_name": "query"}),
    "another prompt than the default": Case(
        "roberta-embedding-mean",
        model={"prompts": PROMPTS, "default_prompt_name": "query"},
        params={"promptName": "document"},
        encode={"prompt_name": "document"},
    ),
    "no prompt, though there is a default": Case(
        "bert-embedding-mean",
        model={"prompts": PROMPTS, "default_prompt_name": "query"},
        params={"prompt": ""},
        encode={"prompt": ""},
    ),
    "the prompt is not pooled": Case(
        "roberta-embedding-mean",
        ("mean", "weightedmean", "cls"),
        pooling_options={"include_prompt": False},
        model={"prompts": PROMPTS, "default_prompt_name": "query"},
    ),
    "the prompt is not pooled, pads at the left": Case(
        "xlnet-embedding-lasttoken",
        "mean",
        pooling_options={"include_prompt": False},
        model={"prompts": PROMPTS},
        params={"promptName": "query"},
        encode={"prompt_name": "query"},
    ),
    "vectors are cut": Case(
        "bert-embedding-mean", modules=lambda width: [models.Normalize()], model={"truncate_dim": 8}
    ),
    "vectors are cut by a param, then scaled": Case(
        "bert-embedding-mean",
        params={"truncateDim": 6, "normalize": True},
        encode={"truncate_dim": 6, "normalize_embeddings": True},
    ),
    "files of 2020": Case("roberta-embedding-mean", rewrite=old_names),
    "more tokens than positions": Case("roberta-embedding-mean", transformer={"max_seq_length": 64}, rewrite=too_long),
}


def write_folder(case: Case, bundles: Bundles, folder: Path) -> SentenceTransformer:
    """Let the library save a model, put the graph beside it, and open it again."""
    transformer = models.Transformer(str(bundles.twin(case.bundle)), **case.transformer)
    pooling = models.Pooling(SIZE, case.pooling, **case.pooling_options)
    width = pooling.get_embedding_dimension()
    modules = [transformer, pooling, *case.modules(width)]
    rich = [parameter for module in modules[2:] for parameter in module.parameters()]
    with no_grad():
        for parameter in rich:
            parameter.normal_(std=0.5)  # the biases of new modules are 0, and the scales 1
    SentenceTransformer(modules=modules, device="cpu", **case.model).save(str(folder))
    model = SentenceTransformer(str(folder), device="cpu")
    case.rewrite(folder)
    if case.rewrite is old_names:
        model = SentenceTransformer(str(folder), device="cpu")
    graph = bundles.folder(case.bundle)
    (folder / "onnx").mkdir()
    for path in [*graph.glob("model.onnx*"), *graph.glob("onnx/model.onnx*")]:
        shutil.copy(path, folder / "onnx" / path.name)
    return model


def same(want: np.ndarray, got: np.ndarray) -> bool:
    return want.shape == got.shape and bool(np.allclose(got, want, rtol=TOLERANCE, atol=TOLERANCE))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_text_embedder_gives_the_vectors_of_sentence_transformers(
    case: Case, bundles: Bundles, texts: list[str], tmp_path: Path
) -> None:
    model = write_folder(case, bundles, tmp_path)
    stage = TextEmbedder.pretrained(tmp_path, inputCols=["document"], outputCol="out", **case.params)
    some = texts[::6]
    rows = LocalPipeline([DocumentAssembler(inputCol="text", outputCol="document"), stage]).fullAnnotate(some)
    expected = [model.encode(text, show_progress_bar=False, **case.encode) for text in some]
    assert len({tuple(vector.round(2)) for vector in expected}) > 100, "vectors that are alike could show no mistake"
    assert_all(some, expected, [np.asarray(row["out"][0].embeddings) for row in rows], same)
