"""Precisions: the file that is taken, and int8 bundles made from fp32 ones."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sparktasks import DocumentAssembler, LocalPipeline, TextClassifier, TextGenerator, cli
from sparktasks.errors import BundleError, ParamError
from sparktasks.runtime.agreement import agreement
from sparktasks.runtime.bundle import PRECISIONS, open_bundle
from sparktasks.runtime.quantize import quantize, write_card
from sparktasks.spark.sources import STARTERS

TEXTS = [
    "play some music",
    "book a table for two in lisbon",
    "what is the weather going to be like tomorrow",
    "how much money is in my account",
    "stop",
]


@pytest.fixture
def variants(bundle: Callable[[str], str], tmp_path: Path) -> Path:
    folder = tmp_path / "variants"
    shutil.copytree(bundle("bert-text-classification"), folder)
    (folder / "onnx").mkdir()
    for name in ("model", "model_fp16", "model_quantized", "model_q4"):
        shutil.copy(folder / "model.onnx", folder / "onnx" / f"{name}.onnx")
    (folder / "model.onnx").unlink()
    return folder


@pytest.mark.parametrize(
    ("precision", "file"),
    [("auto", "model.onnx"), ("fp32", "model.onnx"), ("fp16", "model_fp16.onnx"), ("int8", "model_quantized.onnx")],
)
def test_a_precision_is_the_file_of_that_name(precision: str, file: str, variants: Path) -> None:
    assert open_bundle(variants, precision=precision).model == f"onnx/{file}"
    assert TextClassifier.pretrained(variants, precision=precision).getBundle().model == f"onnx/{file}"


def test_a_precision_that_is_not_there_is_named(bundle: Callable[[str], str]) -> None:
    with pytest.raises(BundleError, match=r"no ONNX file in int8\. ONNX files there: 'model\.onnx'\. Make one with: sparktasks optimize .* --int8"):
        TextClassifier.pretrained(bundle("bert-text-classification"), precision="int8")
    with pytest.raises(ParamError, match=f"precision='int4' is not allowed: it takes 'auto', {', '.join(map(repr, PRECISIONS))}"):
        TextClassifier.pretrained(bundle("bert-text-classification"), precision="int4")
    with pytest.raises(ParamError, match="exclude each other"):
        TextClassifier.pretrained(bundle("bert-text-classification"), file="model.onnx", precision="fp32")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The starter of intents in int8, made by the command."""
    folder = tmp_path_factory.mktemp("int8")
    (folder / "texts").write_text("\n".join(TEXTS))
    cli.main(["optimize", "intents-clinc150", "--int8", "--out", str(folder / "made"), "--texts", str(folder / "texts")])
    return folder / "made"


def test_an_int8_bundle_is_smaller_and_close(made: Path) -> None:
    original, smaller = open_bundle(STARTERS / "intents-clinc150"), open_bundle(made)
    assert smaller.model == "model_int8.onnx"
    assert smaller.weight_bytes < 0.4 * original.weight_bytes
    found = agreement(original, smaller, TEXTS)
    assert found.cosine > 0.99
    assert 0 < found.lowest <= found.cosine < 1, "an equal model would mean that nothing was quantised"
    assert found.same == 1.0
    answers = [LocalPipeline([DocumentAssembler(), TextClassifier.pretrained(source)]).annotate(TEXTS) for source in (None, made)]
    assert [each["category"] for each in answers[0]] == [each["category"] for each in answers[1]]


def test_the_card_says_what_was_measured(made: Path) -> None:
    card = (made / "README.md").read_text()
    assert "same top label: 100.00%" in card
    assert open_bundle(STARTERS / "intents-clinc150").hash in card
    assert (STARTERS / "intents-clinc150" / "README.md").read_text() in card, "the original's card was lost"
    assert (made / "LICENSE").read_text() == (STARTERS / "intents-clinc150" / "LICENSE").read_text()


def test_batch_invariance_makes_int8_independent_of_companions(made: Path) -> None:
    long = " ".join(TEXTS * 5)
    scores = {}
    for invariant in (True, False):
        pipeline = LocalPipeline([DocumentAssembler(), TextClassifier.pretrained(made, batchInvariant=invariant, batchTokens=4096)])
        alone = pipeline.fullAnnotate(TEXTS[0])["category"][0].score
        scores[invariant] = [alone, *(found["category"][0].score for found in pipeline.fullAnnotate([TEXTS[0], "stop it", long]))]
    assert scores[True][0] == scores[True][1]
    assert scores[False][0] != scores[False][1], "companions changed nothing: this test could not fail"


def test_a_folder_that_is_there_is_not_overwritten(made: Path) -> None:
    with pytest.raises(BundleError, match="is there already"):
        quantize(open_bundle(STARTERS / "intents-clinc150"), made)


def test_a_card_without_texts_says_that_nothing_was_measured(bundle: Callable[[str], str], tmp_path: Path) -> None:
    original = open_bundle(bundle("bert-embedding-mean"))
    smaller = quantize(original, tmp_path / "made")
    write_card(smaller, original, None)
    assert "nothing: no texts were given" in (tmp_path / "made" / "README.md").read_text()
    assert np.isfinite(agreement(original, smaller, TEXTS).cosine)
    assert agreement(original, smaller, TEXTS).same is None


def test_labels_of_tokens_are_compared_by_token_and_values_by_difference(bundle: Callable[[str], str], tmp_path: Path) -> None:
    tokens = open_bundle(bundle("bert-token-classification"))
    found = agreement(tokens, quantize(tokens, tmp_path / "tokens"), TEXTS)
    assert found.same is not None
    assert 0.9 < found.same <= 1
    value = open_bundle(bundle("distilbert-text-classification"))
    assert len(value.labels) == 1
    found = agreement(value, quantize(value, tmp_path / "value"), TEXTS)
    assert found.same is None
    assert 0 < found.difference < 0.5


def test_what_cannot_be_quantised_leaves_nothing(made: Path, bundle: Callable[[str], str], tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is quantised already"):
        quantize(open_bundle(made), tmp_path / "again")
    folder = Path(shutil.copytree(bundle("bert-text-classification"), tmp_path / "bare"))
    (folder / "tokenizer.json").unlink()
    with pytest.raises(BundleError, match=r"has no tokenizer\.json"):
        quantize(open_bundle(folder), tmp_path / "again")
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize(
    ("name", "graphs"),
    [("gpt2-text-generation", ["model_int8.onnx"]), ("t5-text2text-generation", ["decoder_model_merged_int8.onnx", "encoder_model_int8.onnx"])],
)
def test_generators_are_quantised_whole(name: str, graphs: list[str], bundle: Callable[[str], str], tmp_path: Path) -> None:
    original = open_bundle(bundle(name))
    (tmp_path / "texts").write_text("\n".join(TEXTS))
    cli.main(["optimize", bundle(name), "--int8", "--out", str(tmp_path / "made"), "--texts", str(tmp_path / "texts")])
    made = open_bundle(tmp_path / "made")
    assert list(made.graphs) == graphs
    for graph in graphs:
        assert "MatMulInteger" in (tmp_path / "made" / graph).read_bytes().decode("latin-1"), f"{graph} was not quantised"
    found = agreement(original, made, TEXTS)
    assert 0.95 < found.lowest < 1
    assert "same next token: " in (tmp_path / "made" / "README.md").read_text()
    pipeline = LocalPipeline([DocumentAssembler(), TextGenerator.pretrained(tmp_path / "made", precision="int8", maxNewTokens=4)])
    assert all(row["generation"][0] for row in pipeline.annotate(TEXTS))
    assert open_bundle(tmp_path / "made").model == graphs[0]
    with pytest.raises(BundleError, match="is quantised already"):
        quantize(made, tmp_path / "again")
