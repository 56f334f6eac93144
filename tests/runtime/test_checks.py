"""What is refused when a stage is made, and what becomes an error of one row."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from sparktasks import DocumentAssembler, LocalPipeline, TextClassifier, TextEmbedder, TokenClassifier
from sparktasks.errors import BundleError, DataError
from tests.graphs import FAILS_ON_W5, MEAN_OF_MASKED, NO_NUMBER_FOR_W5, WORDS, Nodes, write_bundle, write_tokenizer

Find = Callable[[str], str]
BUNDLES = Path(__file__).parents[1] / "bundles"


def edit(path: Path, **changes: Any) -> None:
    path.chmod(0o644)
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture
def copy(tmp_path: Path) -> Callable[[str], Path]:
    def make(name: str) -> Path:
        return Path(shutil.copytree(BUNDLES / name, tmp_path / name))

    return make


def rename_output(folder: Path, name: str) -> None:
    model = onnx.load(folder / "model.onnx")
    old = model.graph.output[0].name
    for each in model.graph.node:
        each.output[:] = [name if output == old else output for output in each.output]
    model.graph.output[0].name = name
    (folder / "model.onnx").chmod(0o644)
    onnx.save(model, folder / "model.onnx")


# -- roles


@pytest.mark.parametrize("stage", [TextClassifier, TokenClassifier])
def test_an_encoder_without_a_head_is_refused(stage: type, bundle: Find) -> None:
    with pytest.raises(BundleError, match=r"computes 'last_hidden_state'.* an encoder without a head"):
        stage.pretrained(bundle("bert-embedding-mean"))


@pytest.mark.parametrize(
    ("name", "stage", "source", "message"),
    [
        ("start_logits", TextClassifier, "bert-text-classification", "a model for question-answering"),
        ("token_embeddings", TokenClassifier, "bert-token-classification", "an encoder without a head"),
        ("pooler_output", TextClassifier, "bert-text-classification", "an encoder without a head"),
    ],
)
def test_outputs_of_other_tasks_are_refused(
    name: str, stage: type, source: str, message: str, copy: Callable[[str], Path]
) -> None:
    folder = copy(source)
    rename_output(folder, name)
    with pytest.raises(BundleError, match=message):
        stage.pretrained(folder)


def test_outputs_of_any_other_name_are_logits(copy: Callable[[str], Path]) -> None:
    folder = copy("bert-text-classification")
    before = LocalPipeline([DocumentAssembler(), TextClassifier.pretrained(BUNDLES / folder.name)]).annotate(
        "play music"
    )
    rename_output(folder, "output_0")
    assert LocalPipeline([DocumentAssembler(), TextClassifier.pretrained(folder)]).annotate("play music") == before


def test_a_language_model_is_no_classifier(copy: Callable[[str], Path]) -> None:
    folder = copy("bert-token-classification")
    config = json.loads((folder / "config.json").read_text())
    kept = {key: value for key, value in config.items() if key not in ("id2label", "label2id")}
    (folder / "config.json").write_text(json.dumps(kept | {"vocab_size": 7}))
    with pytest.raises(BundleError, match="one score for each of the 7 tokens of the vocabulary"):
        TokenClassifier.pretrained(folder)


@pytest.mark.parametrize(
    "names",
    [
        {"1": "a", "2": "b", "3": "c", "4": "d"},
        {"a": 0, "b": 1, "c": 2, "d": 3},
        {"0": "a", "1": "b", "2": "c", "4": "d"},
        {"LABEL_0": "a", "LABEL_1": "b", "LABEL_2": "c", "LABEL_3": "d"},
        ["a", "b", "c", "d"],
        {},
    ],
    ids=["from 1", "turned round", "with a gap", "names for numbers", "a list", "empty"],
)
def test_labels_that_are_not_numbered_from_0_are_refused(names: Any, tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "model", MEAN_OF_MASKED, config={"id2label": names})
    with pytest.raises(BundleError, match=r"the keys of id2label in config.json|config.json names 0 labels"):
        TextClassifier.pretrained(folder)


# -- axes


def test_axes_that_text_cannot_fill_are_refused(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "model", MEAN_OF_MASKED, shape=(1, 16))
    model = onnx.load(folder / "model.onnx")
    model.graph.input[1].type.tensor_type.shape.dim[1].dim_value = 8
    onnx.save(model, folder / "model.onnx")
    with pytest.raises(BundleError, match="inputs of unlike fixed sizes"):
        TextClassifier.pretrained(folder)


def test_a_fixed_length_without_a_mask_is_refused(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "model", MEAN_OF_MASKED, shape=(1, 16))
    model = onnx.load(folder / "model.onnx")
    del model.graph.input[1]
    onnx.save(model, folder / "model.onnx")
    with pytest.raises(BundleError, match="takes exactly 16 tokens and no attention_mask"):
        TextClassifier.pretrained(folder)


def test_a_length_beyond_the_fixed_one_is_refused(tmp_path: Path) -> None:
    stage = TextClassifier.pretrained(write_bundle(tmp_path / "model", MEAN_OF_MASKED, shape=(1, 16)), maxLength=17)
    with pytest.raises(ValueError, match="maxLength=17 is more than the 16 positions"):
        LocalPipeline([DocumentAssembler(), stage])


# -- tokenizers


def test_ordinary_tokens_beyond_the_embedding_are_refused(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "model", MEAN_OF_MASKED)
    write_tokenizer(folder, extra=["w99"])
    with pytest.raises(BundleError, match=r"makes token ids up to 40, but the embedding in model.onnx has 40 rows"):
        TextClassifier.pretrained(folder)


@pytest.mark.parametrize("listed", [True, False], ids=["in tokenizer.json", "named by the config only"])
def test_special_tokens_beyond_the_embedding_cost_only_the_rows_that_have_them(listed: bool, tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "model", MEAN_OF_MASKED)
    if listed:
        token = {"id": len(WORDS), "content": "<mask>", "special": True, "normalized": False}
        flags = dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
        edit(folder / "tokenizer.json", added_tokens=[token | flags])
        with pytest.warns(UserWarning, match=r"has 40 rows, and none for the special tokens '<mask>'"):
            stage = TextClassifier.pretrained(folder)
    else:
        edit(folder / "tokenizer_config.json", additional_special_tokens=["<mask>"])
        stage = TextClassifier.pretrained(folder)
    pipeline = LocalPipeline([DocumentAssembler(), stage])
    rows = [row["category"][0] for row in pipeline.fullAnnotate(["w1 w2", "w1 <mask> w2", "w4"])]
    assert [row.result is None for row in rows] == [False, True, False]
    assert (
        rows[1]
        .metadata["error"]
        .startswith("DataError: the text has the token '<mask>' (40), and the model's embedding has 40 rows")
    )
    assert rows[0].score == pytest.approx(pipeline.fullAnnotate("w1 w2")["category"][0].score)


def test_files_beside_the_graph_count_where_the_root_has_none(spark: object, copy: Callable[[str], Path]) -> None:
    folder = copy("bert-text-classification")
    expected = LocalPipeline([DocumentAssembler(), TextClassifier.pretrained(BUNDLES / folder.name)]).annotate(
        "play music"
    )
    (folder / "onnx").mkdir()
    for path in list(folder.iterdir()):
        if path.is_file():
            path.rename(folder / "onnx" / path.name)
    stage = TextClassifier.pretrained(folder)
    assert LocalPipeline([DocumentAssembler(), stage]).annotate("play music") == expected
    stage.save(str(folder.parent / "saved"))
    assert (
        LocalPipeline([DocumentAssembler(), TextClassifier.load(str(folder.parent / "saved"))]).annotate("play music")
        == expected
    )


# -- rows


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        (NO_NUMBER_FOR_W5, "DataError: the model computed NaN or infinity for this text"),
        (FAILS_ON_W5, "DataError: onnxruntime could not run the model: "),
    ],
    ids=["NaN", "a run that fails"],
)
def test_what_a_model_cannot_read_costs_its_own_row_only(nodes: Nodes, message: str, tmp_path: Path) -> None:
    texts = ["w1 w2", "w5 w6", "w7", "w8 w9 w5", "w3 w4"]
    folder, sound = write_bundle(tmp_path / "model", nodes), write_bundle(tmp_path / "sound", MEAN_OF_MASKED)
    rows = LocalPipeline([DocumentAssembler(), TextClassifier.pretrained(folder)]).fullAnnotate(texts)
    found = [row["category"][0] for row in rows]
    assert [item.result is None for item in found] == [False, True, False, True, False]
    assert all(found[place].metadata["error"].startswith(message) for place in (1, 3))
    others = LocalPipeline([DocumentAssembler(), TextClassifier.pretrained(sound)]).fullAnnotate(texts)
    for place in (0, 2, 4):
        assert found[place].result == others[place]["category"][0].result
    with pytest.raises(DataError, match="With onError='keep' the job goes on"):
        LocalPipeline([DocumentAssembler(), TextClassifier.pretrained(folder, onError="fail")]).annotate(texts)


@pytest.mark.parametrize(
    ("stage", "source", "params"),
    [
        (TokenClassifier, "bert-token-classification", {}),
        (TokenClassifier, "bert-token-classification", {"aggregation": "simple"}),
        (TextEmbedder, "bert-embedding-mean", {}),
        (TextEmbedder, "bert-embedding-mean", {"level": "token"}),
    ],
)
def test_every_text_task_keeps_and_fails_on_nan(
    stage: type, source: str, params: dict[str, Any], copy: Callable[[str], Path]
) -> None:
    folder = copy(source)
    model = onnx.load(folder / "model.onnx")
    output = model.graph.output[0].name
    for each in model.graph.node:
        each.output[:] = ["before" if name == output else name for name in each.output]
    model.graph.node.extend(
        [
            onnx.helper.make_node("Sub", ["before", "before"], ["zero"]),
            onnx.helper.make_node("Div", ["zero", "zero"], [output]),
        ]
    )
    (folder / "model.onnx").chmod(0o644)
    onnx.save(model, folder / "model.onnx")
    made = stage.pretrained(folder, **params)
    row = LocalPipeline([DocumentAssembler(), made]).fullAnnotate("play music")[made.getOutputCol()]
    assert [item.result for item in row] == [None]
    assert "the model computed NaN or infinity" in row[0].metadata["error"]
    with pytest.raises(DataError, match="NaN or infinity"):
        LocalPipeline([DocumentAssembler(), stage.pretrained(folder, onError="fail", **params)]).annotate("play music")
