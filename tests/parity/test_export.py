"""`sparktasks export`: the annotators give what transformers and sentence-transformers give of the PyTorch folder."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import transformers as hf
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules

from sparktasks import (
    DocumentAssembler,
    LocalPipeline,
    TextClassifier,
    TextEmbedder,
    TextGenerator,
    TokenClassifier,
    Translator,
)
from sparktasks.cli import main
from sparktasks.export import exporters
from sparktasks.export.source import Source
from sparktasks.export.tasks import CONTINUES, ENCODES, ENCODES_ALONE, LABELS_TEXTS, LABELS_TOKENS, Form

from . import pytorch_folders as folders

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
TOLERANCE = 1e-4
TEXTS = [line for line in folders.LINES if 20 < len(line) < 120][:40]
PROMPTS = TEXTS[:16]


@pytest.fixture(autouse=True)
def quiet_libraries() -> None:
    hf.logging.set_verbosity_error()


def exported(make: Callable[[Path], Any], folder: Path, *options: str) -> tuple[Path, Path]:
    """Make a PyTorch folder, export it by the command, and return both folders."""
    source, target = folder / "pytorch", folder / "onnx"
    make(source)
    main(["export", str(source), str(target), *options])
    return source, target


def annotated(stage: Any, texts: list[str] = TEXTS) -> list[list[Any]]:
    """Return what an annotator writes for each text."""
    rows = LocalPipeline([DocumentAssembler(), stage.setInputCols(["document"]).setOutputCol("out")])
    return [row["out"] for row in rows.fullAnnotate(texts)]


@pytest.mark.parametrize("make", [folders.classifier, folders.xlnet_classifier])
def test_a_classifier_gives_the_scores_of_transformers(
    make: Callable[[Path], Any], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    source, target = exported(make, tmp_path)
    told = capsys.readouterr().out
    assert "for text-classification" in told
    assert f"use: TextClassifier.pretrained('{target}')" in told
    oracle = hf.pipeline("text-classification", str(source), top_k=None)
    answers = annotated(TextClassifier.pretrained(target, topK=None))
    wanted = oracle(TEXTS)
    for expected, found in zip(wanted, answers, strict=True):
        assert [item.result for item in found] == [item["label"] for item in expected]
        assert [item.score for item in found] == pytest.approx([item["score"] for item in expected], abs=TOLERANCE)
    assert len({items[0].result for items in answers}) >= 3, "labels that are all alike could show no mistake"


def test_a_classifier_of_pairs_gives_the_scores_of_transformers(tmp_path: Path) -> None:
    source, target = exported(folders.classifier, tmp_path)
    stages = [
        DocumentAssembler(inputCols=["text", "text_pair"], outputCols=["first", "second"]),
        TextClassifier.pretrained(target, inputCols=["first", "second"], outputCol="out"),
    ]
    pairs = [{"text": first, "text_pair": second} for first, second in zip(TEXTS[:10], TEXTS[10:20], strict=True)]
    oracle = hf.pipeline("text-classification", str(source))
    for pair, row in zip(pairs, LocalPipeline(stages).fullAnnotate(pairs), strict=True):
        expected = oracle(pair)
        assert row["out"][0].result == expected["label"]
        assert row["out"][0].score == pytest.approx(expected["score"], abs=TOLERANCE)


def test_a_token_classifier_with_vocab_txt_alone_gives_the_spans_of_transformers(tmp_path: Path) -> None:
    source, target = exported(folders.token_classifier, tmp_path)
    assert not (source / "tokenizer.json").exists()
    assert sorted(path.name for path in target.iterdir()) == [
        "config.json",
        "model.onnx",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    oracle = hf.pipeline("token-classification", str(source), aggregation_strategy="first")
    answers = annotated(TokenClassifier.pretrained(target, aggregation="first"))
    for text, found in zip(TEXTS, answers, strict=True):
        expected = oracle(text)
        spans = [(item.metadata["entity"], item.begin, item.end + 1) for item in found]
        assert spans == [(item["entity_group"], item["start"], item["end"]) for item in expected]
        assert [item.score for item in found] == pytest.approx([item["score"] for item in expected], abs=TOLERANCE)
    assert sum(map(len, answers)) > len(TEXTS)


def embedder(folder: Path) -> SentenceTransformer:
    """Save an embedder with modules behind the pooling and prompts, the weights of one module as 2022 wrote them."""
    plain = folder.with_name("encoder")
    hf.BertTokenizerFast(vocab_file=str(folders.word_pieces(plain))).save_pretrained(plain)
    folders.save(folders.bert_config(), hf.AutoModel, plain)
    dense = modules.Dense(32, 16, activation_function=torch.nn.Tanh())
    with torch.no_grad():
        dense.linear.bias.normal_(std=0.5)
    chain = [modules.Transformer(str(plain)), modules.Pooling(32, "mean"), dense, modules.Normalize()]
    prompts = {"query": "a question: ", "passage": "a passage: "}
    model = SentenceTransformer(modules=chain, prompts=prompts, default_prompt_name="query", device="cpu")
    model.save(str(folder))
    weights = folder / "2_Dense" / "model.safetensors"
    torch.save(dense.state_dict(), weights.with_name("pytorch_model.bin"))
    weights.unlink()
    return model


def test_an_embedder_gives_the_vectors_of_sentence_transformers(tmp_path: Path) -> None:
    source, target = exported(embedder, tmp_path)
    assert (target / "2_Dense" / "model.safetensors").is_file()
    assert not list(target.rglob("*.bin"))
    model = SentenceTransformer(str(source), device="cpu")
    for name in ("query", "passage"):
        vectors = [row[0].embeddings for row in annotated(TextEmbedder.pretrained(target, promptName=name))]
        expected = model.encode(TEXTS, prompt_name=name)
        np.testing.assert_allclose(vectors, expected, atol=TOLERANCE)
    by_default = [row[0].embeddings for row in annotated(TextEmbedder.pretrained(target))]
    np.testing.assert_allclose(by_default, model.encode(TEXTS), atol=TOLERANCE)
    assert len({tuple(np.round(vector, 2)) for vector in expected}) == len(set(TEXTS))


def test_an_embedder_whose_transformer_has_a_folder_of_its_own_is_exported(tmp_path: Path) -> None:
    def make(folder: Path) -> None:
        embedder(folder)
        inner = folder / "0_Transformer"
        inner.mkdir()
        for path in [*folder.glob("*token*"), *folder.glob("vocab*")]:
            shutil.move(path, inner)
        for name in ("config.json", "model.safetensors", "sentence_bert_config.json"):
            shutil.move(folder / name, inner)
        listed = json.loads((folder / "modules.json").read_text())
        listed[0]["path"] = "0_Transformer"
        folders.write_json(folder / "modules.json", listed)

    source, target = exported(make, tmp_path)
    vectors = [row[0].embeddings for row in annotated(TextEmbedder.pretrained(target))]
    np.testing.assert_allclose(vectors, SentenceTransformer(str(source), device="cpu").encode(TEXTS), atol=TOLERANCE)


def generated(source: Path, auto_class: Any, **options: Any) -> list[str]:
    """Return what transformers generates for each text, the new tokens alone."""
    tokenizer = hf.AutoTokenizer.from_pretrained(source)
    network = auto_class.from_pretrained(source).eval()
    texts = []
    for text in PROMPTS:
        encoded = tokenizer(text, return_tensors="pt", return_token_type_ids=False)
        ids = network.generate(**encoded, do_sample=False, **options)[0]
        skipped = 0 if network.config.is_encoder_decoder else encoded["input_ids"].shape[1]
        texts.append(tokenizer.decode(ids[skipped:], skip_special_tokens=True))
    return texts


def test_a_decoder_gives_the_texts_of_transformers(tmp_path: Path) -> None:
    source, target = exported(folders.decoder, tmp_path)
    answers = [row[0].result for row in annotated(TextGenerator.pretrained(target), PROMPTS)]
    expected = generated(source, hf.AutoModelForCausalLM)
    assert answers == expected
    assert len(set(expected)) > len(PROMPTS) // 2
    embedding = folders.PIECES * folders.SIZES["hidden_size"]
    sizes = [np.prod(weight.dims) for weight in onnx.load(target / "model.onnx").graph.initializer]
    assert sizes.count(embedding) == 1, "the embedding that input and output share is there twice"


def test_a_chat_template_is_carried_over(tmp_path: Path) -> None:
    source, target = exported(folders.decoder, tmp_path)
    tokenizer = hf.AutoTokenizer.from_pretrained(source)
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": TEXTS[0]}], tokenize=False)
    plain, chat = (TextGenerator.pretrained(target, chat=flag) for flag in (False, True))
    assert annotated(chat, TEXTS[:1])[0][0].result == annotated(plain, [prompt])[0][0].result


def test_an_encoder_decoder_with_spiece_model_alone_gives_the_texts_of_transformers(tmp_path: Path) -> None:
    source, target = exported(folders.encoder_decoder, tmp_path)
    graphs = sorted(path.name for path in target.glob("*.onnx"))
    assert graphs == ["decoder_model_merged.onnx", "encoder_model.onnx"]
    stage = TextGenerator.pretrained(target, maxNewTokens=12, numBeams=1)
    answers = [row[0].result for row in annotated(stage, PROMPTS)]
    expected = generated(source, hf.AutoModelForSeq2SeqLM, max_new_tokens=12)
    assert answers == expected
    assert len(set(expected)) > len(PROMPTS) // 2


def test_a_translator_with_sentencepiece_files_gives_the_texts_of_transformers(tmp_path: Path) -> None:
    source, target = exported(folders.marian, tmp_path, "--task", "translation")
    assert not (target / "tokenizer.json").exists()
    stage = Translator.pretrained(target, maxNewTokens=12, numBeams=1)
    expected = generated(source, hf.AutoModelForSeq2SeqLM, max_new_tokens=12)
    assert [row[0].result for row in annotated(stage, PROMPTS)] == expected
    assert len(set(expected)) > len(PROMPTS) // 2


def test_weights_above_the_limit_of_a_graph_stand_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporters, "LARGE", 1000)
    _, target = exported(folders.xlnet_classifier, tmp_path)
    beside = target / "model.onnx_data"
    assert beside.stat().st_size > (target / "model.onnx").stat().st_size
    assert beside.stat().st_mode == (target / "config.json").stat().st_mode


AUTO_CLASSES = {
    LABELS_TEXTS: hf.AutoModelForSequenceClassification,
    LABELS_TOKENS: hf.AutoModelForTokenClassification,
    ENCODES: hf.AutoModel,
    ENCODES_ALONE: hf.AutoModelForTextEncoding,
    CONTINUES: hf.AutoModelForCausalLM,
}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
SIZES = {
    "mt5": T5,
    "t5": T5,
    "umt5": T5,
    "xlnet": {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64},
    "luke": {**folders.SIZES, "entity_vocab_size": 9, "entity_emb_size": 8},
    "olmo3": {**folders.SIZES, "num_key_value_heads": 2, "sliding_window": 16},
}


@pytest.mark.parametrize(
    ("model_type", "form"), exporters.EXPORTERS, ids=lambda value: getattr(value, "optimum", value)
)
def test_every_architecture_of_our_own_table_is_exported(
    model_type: str, form: Form, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    def make(folder: Path) -> None:
        tokenizer = folders.byte_pairs()
        tokenizer.save_pretrained(folder)
        ids = {"vocab_size": len(tokenizer), "bos_token_id": None, "eos_token_id": 0, "pad_token_id": 1}
        grouped = {"num_key_value_heads": 2, "head_dim": 8} if form is CONTINUES else {}
        sizes = SIZES.get(model_type, {**folders.SIZES, **grouped})
        folders.save(hf.AutoConfig.for_model(model_type, **ids, **sizes), AUTO_CLASSES[form], folder)

    exported(make, tmp_path)
    assert "checked: 5 texts" in capsys.readouterr().out


def of_other_weights(exporter: exporters.Exporter, auto_class: Any, folder: Path) -> exporters.Exporter:
    """Return an exporter that exports a model whose weights differ a little."""

    def export(source: Source, form: Form, tokenizer: Any, target: Path) -> None:
        shutil.copytree(source.folder, folder)
        network = auto_class.from_pretrained(folder)
        with torch.no_grad():
            next(weight for name, weight in network.named_parameters() if "1." in name and weight.ndim == 2).mul_(1.02)
        network.save_pretrained(folder)
        exporter(Source(source.name, folder, folder, source.config, ()), form, tokenizer, target)

    return export


@pytest.mark.parametrize(
    ("make", "key"),
    [(folders.classifier, ("bert", LABELS_TEXTS)), (folders.decoder, ("llama", CONTINUES))],
    ids=["classifier", "decoder"],
)
def test_a_graph_of_other_weights_is_refused_and_leaves_nothing(
    make: Callable[[Path], Any],
    key: tuple[str, Form],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    other = of_other_weights(exporters.export_with_optimum, AUTO_CLASSES[key[1]], tmp_path / "other")
    monkeypatch.setitem(exporters.EXPORTERS, key, other)
    with pytest.raises(SystemExit):
        exported(make, tmp_path)
    message = capsys.readouterr().err
    assert re.search(r"does not answer as the one in PyTorch does. The largest difference is 0\.\d+, for '", message)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "pytorch"]


def refused(capsys: pytest.CaptureFixture, *arguments: object) -> str:
    """Return why the command refuses these arguments."""
    with pytest.raises(SystemExit):
        main(["export", *map(str, arguments)])
    return str(capsys.readouterr().err)


def test_a_folder_that_is_not_empty_is_refused_unless_it_is_an_earlier_export(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    source, target = exported(folders.classifier, tmp_path)
    before = (target / "model.onnx").stat().st_ino
    assert "--force" in refused(capsys, source, target)
    main(["export", str(source), str(target), "--force"])
    assert (target / "model.onnx").stat().st_ino != before
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "mine.txt").touch()
    assert "not an earlier export" in refused(capsys, source, tmp_path / "letters", "--force")
    (target / "inside").mkdir()
    shutil.copytree(source, target / "inside" / "model")
    assert "holds the model" in refused(capsys, target / "inside" / "model", target, "--force")
    assert (target / "inside" / "model" / "model.safetensors").is_file()
    assert "is a file" in refused(capsys, source, source / "config.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["letters", "onnx", "pytorch"]
    (tmp_path / "empty").mkdir()
    main(["export", str(source), str(tmp_path / "empty")])
    assert (tmp_path / "empty" / "model.onnx").is_file()


def test_an_architecture_that_cannot_be_exported_is_named_with_those_that_can(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    source = tmp_path / "pytorch"
    folders.classifier(source)
    config = json.loads((source / "config.json").read_text())

    def refusal(**changes: Any) -> str:
        folders.write_json(source / "config.json", {**config, **changes})
        return refused(capsys, source, tmp_path / "onnx" / "deep")

    message = refusal(model_type="canine")
    assert "'canine' cannot be exported for text-classification" in message
    assert "albert" in message
    assert "xlnet" in message
    assert "'bret'" in refusal(model_type="bret")
    assert "Did you mean 'bert'" in refusal(model_type="bret")
    code = {"auto_map": {"AutoModel": "modeling_bret.BretModel"}, "architectures": ["BretModel"]}
    assert "never run" in refusal(model_type="bret", **code)
    assert "--task" in refusal(architectures=["BertForMaskedLM"])
    main(["export", str(source), str(tmp_path / "vectors"), "--task", "text-embedding"])
    shutil.rmtree(tmp_path / "vectors")
    assert "there is no task 'text-clasification'" in refused(
        capsys, source, tmp_path / "onnx", "--task", "text-clasification"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pytorch"]


def test_a_task_that_the_weights_were_not_trained_for_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    source = tmp_path / "pytorch"
    hf.BertTokenizerFast(vocab_file=str(folders.word_pieces(source))).save_pretrained(source)
    folders.save(folders.bert_config(), hf.AutoModel, source)
    message = refused(capsys, source, tmp_path / "onnx", "--task", "token-classification")
    assert "lack 'classifier.bias', 'classifier.weight' of BertForTokenClassification" in message
    assert "no encoder-decoder model" in refused(capsys, source, tmp_path / "onnx", "--task", "summarization")
