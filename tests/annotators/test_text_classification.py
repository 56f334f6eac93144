"""TextClassifier's params and hard inputs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from sparktasks import Annotation, DocumentAssembler, LocalPipeline, TextClassifier, TokenClassifier
from sparktasks.errors import BundleError, DataError, DeliveryError, ParamError
from tests.large import make_large

Find = Callable[[str], str]
LONG = "the quick brown fox jumps over the lazy dog " * 40


def classify(folder: str, texts: list[object], **params: object) -> list[list[Annotation]]:
    stages = [DocumentAssembler(), TextClassifier.pretrained(folder, **params)]
    return [row["category"] for row in LocalPipeline(stages).fullAnnotate(texts)]


def test_top_k_keeps_the_best_labels_in_order(bundle: Find) -> None:
    every = classify(bundle("bert-text-classification"), ["play music"], topK=None)[0]
    best = classify(bundle("bert-text-classification"), ["play music"], topK=2)[0]
    assert best == every[:2]
    assert len(every) == 5
    assert sum(annotation.score or 0 for annotation in every) == pytest.approx(1, abs=1e-5)


def test_threshold_leaves_out_unsure_labels(bundle: Find) -> None:
    every = classify(bundle("roberta-text-classification"), ["play music"], topK=None)[0]
    kept = classify(bundle("roberta-text-classification"), ["play music"], topK=None, threshold=0.5)[0]
    assert kept == [annotation for annotation in every if (annotation.score or 0) >= 0.5]
    assert 0 < len(kept) < len(every)


def test_multi_label_scores_are_independent(bundle: Find) -> None:
    scores = [
        annotation.score or 0
        for annotation in classify(bundle("roberta-text-classification"), ["play music"], topK=None)[0]
    ]
    assert sum(scores) != pytest.approx(1, abs=1e-3)


def test_regression_gives_the_raw_value(bundle: Find) -> None:
    raw = classify(bundle("distilbert-text-classification"), ["a", "play music"], functionToApply="none")
    assert raw == classify(bundle("distilbert-text-classification"), ["a", "play music"])
    assert len({annotations[0].score for annotations in raw}) == 2


def test_function_can_be_overridden(bundle: Find) -> None:
    name = bundle("bert-text-classification")
    logits = {a.result: a.score or 0 for a in classify(name, ["play music"], topK=None, functionToApply="none")[0]}
    sigmoid = {a.result: a.score or 0 for a in classify(name, ["play music"], topK=None, functionToApply="sigmoid")[0]}
    assert max(logits, key=logits.__getitem__) == max(sigmoid, key=sigmoid.__getitem__)
    assert all(0 < value < 1 for value in sigmoid.values())
    assert any(abs(value) > 1 for value in logits.values())


def test_windows_of_pairs_are_refused(bundle: Find) -> None:
    stages = [
        DocumentAssembler(inputCols=["a", "b"], outputCols=["a_doc", "b_doc"]),
        TextClassifier.pretrained(bundle("bert-text-classification"), inputCols=["a_doc", "b_doc"], longText="window"),
    ]
    with pytest.raises(ParamError, match="pairs of documents can only be truncated"):
        LocalPipeline(stages)


@pytest.mark.parametrize("name", ["bert-text-classification", "xlnet-text-classification"])
def test_long_pairs_are_cut_before_they_grow(bundle: Find, name: str) -> None:
    """The tokenizers library would make a window for each part of one text with each part of the other."""
    stages = [
        DocumentAssembler(inputCols=["a", "b"], outputCols=["a_doc", "b_doc"]),
        TextClassifier.pretrained(bundle(name), inputCols=["a_doc", "b_doc"], topK=None),
    ]
    short, long = LocalPipeline(stages).fullAnnotate(
        [{"a": "play music " * n, "b": "set an alarm " * n} for n in (300, 30_000)]
    )
    assert [a.result for a in short["category"]] == [a.result for a in long["category"]]
    assert [a.score for a in short["category"]] == pytest.approx([a.score for a in long["category"]], abs=1e-6)
    assert all(a.metadata["truncated"] == "true" for a in long["category"])


def test_faults_fail_the_job_when_asked(bundle: Find) -> None:
    for mode in ("keep", "fail"):
        stages = [
            DocumentAssembler(inputCols=["a", "b"], outputCols=["a_doc", "b_doc"]),
            TextClassifier.pretrained(bundle("bert-text-classification"), inputCols=["a_doc", "b_doc"], onError=mode),
        ]
        data = {"a": ["one", "two", "three"], "b": ["first", "second"]}
        if mode == "keep":
            assert LocalPipeline(stages).annotate(data)["category"][2] is None
        else:
            with pytest.raises(DataError, match=r"no document to pair this one with\. The text: 'three'"):
                LocalPipeline(stages).annotate(data)


def test_truncation_is_flagged(bundle: Find) -> None:
    short, long = classify(bundle("bert-text-classification"), ["play music", LONG])
    assert "truncated" not in short[0].metadata
    assert long[0].metadata["truncated"] == "true"


def test_windows_average_the_whole_text_by_token_count(bundle: Find) -> None:
    name = bundle("bert-text-classification")
    room = 20 - 2
    words = (["fox"] * room, ["dog"] * (room // 2))
    texts = [" ".join(words[0] + words[1]), " ".join(words[0]), " ".join(words[1])]
    assert all(len(annotations) == 5 for annotations in classify(name, texts, topK=None, maxLength=20))
    both, first, second = (
        {a.result: a.score or 0 for a in row}
        for row in classify(name, texts, topK=None, maxLength=20, longText="window")
    )
    tokens = [_tokens(name, text) for text in texts]
    if tokens[0] == tokens[1] + tokens[2] and tokens[1] == room:
        assert both == pytest.approx(
            {k: (first[k] * tokens[1] + second[k] * tokens[2]) / tokens[0] for k in both}, abs=1e-5
        )
    truncated = {a.result: a.score or 0 for a in classify(name, texts, topK=None, maxLength=20)[0]}
    assert both != pytest.approx(truncated, abs=1e-3)


def _tokens(folder: str, text: str) -> int:
    from tokenizers import Tokenizer

    return len(Tokenizer.from_file(f"{folder}/tokenizer.json").encode(text, add_special_tokens=False).ids)


def test_pairs_differ_from_single_texts_and_by_order(bundle: Find) -> None:
    stages = [
        DocumentAssembler(inputCols=["a", "b"], outputCols=["a_doc", "b_doc"]),
        TextClassifier.pretrained(bundle("bert-text-classification"), inputCols=["a_doc", "b_doc"], topK=None),
    ]
    local = LocalPipeline(stages)
    ab = local.fullAnnotate({"a": "play music", "b": "set an alarm"})["category"]
    ba = local.fullAnnotate({"a": "set an alarm", "b": "play music"})["category"]
    assert [a.score for a in ab] != pytest.approx([a.score for a in ba], abs=1e-3)
    assert (ab[0].begin, ab[0].end) == (0, 9)


def test_one_partner_serves_all_documents_and_a_missing_one_is_an_error(bundle: Find) -> None:
    stages = [
        DocumentAssembler(inputCols=["a", "b"], outputCols=["a_doc", "b_doc"]),
        TextClassifier.pretrained(bundle("bert-text-classification"), inputCols=["a_doc", "b_doc"]),
    ]
    local = LocalPipeline(stages)
    shared = local.fullAnnotate({"a": ["one", "two", "three"], "b": ["partner"]})["category"]
    assert [annotation.error for annotation in shared] == [None] * 3
    short = local.fullAnnotate({"a": ["one", "two", "three"], "b": ["first", "second"]})["category"]
    assert [annotation.error for annotation in short] == [
        None,
        None,
        "DataError: there is no document to pair this one with",
    ]


def test_documents_of_an_array_are_classified_each(bundle: Find) -> None:
    found = classify(bundle("bert-text-classification"), [["play music", "", None, "set an alarm"]])[0]
    assert [annotation.metadata["sentence"] for annotation in found] == ["0", "3"]


HARD = {
    "only emoji": "😀🎉👩‍👩‍👧",
    "right to left": "مرحبا بالعالم",
    "nul": "a\x00b",
    "lone surrogate": "a\ud800b",
    "5 MB": "lorem ipsum " * 420_000,
}


@pytest.mark.parametrize("case", HARD)
def test_hard_texts_are_annotated_with_right_offsets(bundle: Find, case: str) -> None:
    found = classify(bundle("bert-text-classification"), [HARD[case]])[0]
    assert [(annotation.begin, annotation.end, annotation.error) for annotation in found] == [
        (0, len(HARD[case]) - 1, None)
    ]


@pytest.fixture
def broken(bundle: Find, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle("bert-text-classification"), tmp_path / "broken"))


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("config.json", "has no config.json"),
        ("tokenizer.json", "has no tokenizer.json"),
        ("model.onnx", "has no model.onnx"),
    ],
)
def test_missing_files_are_named(broken: Path, file: str, message: str) -> None:
    (broken / file).unlink()
    with pytest.raises(BundleError, match=message):
        TextClassifier.pretrained(broken)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
def test_truncated_onnx_is_refused_before_a_job(broken: Path, share: float) -> None:
    content = (broken / "model.onnx").read_bytes()
    (broken / "model.onnx").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(BundleError, match=r"model\.onnx is not a whole ONNX file"):
        TextClassifier.pretrained(broken)


def test_git_lfs_pointer_is_refused(broken: Path) -> None:
    (broken / "model.onnx").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 90\n")
    with pytest.raises(BundleError, match="Git LFS pointer"):
        TextClassifier.pretrained(broken)


def test_label_count_that_differs_from_the_graph_is_refused(broken: Path) -> None:
    config = json.loads((broken / "config.json").read_text())
    config["id2label"].pop("4")
    (broken / "config.json").write_text(json.dumps(config))
    with pytest.raises(BundleError, match=r"names 4 labels, but the graph model\.onnx computes 5"):
        TextClassifier.pretrained(broken)


def test_tokenizer_with_more_ids_than_the_embedding_is_refused(broken: Path) -> None:
    tokenizer = json.loads((broken / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["surplus"] = 99_999
    (broken / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(BundleError, match="token ids up to 99999, but the embedding"):
        TextClassifier.pretrained(broken)


def want_outside_data(folder: Path, location: str) -> None:
    """Let a folder's graph want weights from another file."""
    content = (folder / "model.onnx").read_bytes()
    entry = b"\x0a\x08location\x12" + bytes([len(location)]) + location.encode()
    tensor = b"\x42\x01w" + b"\x6a" + bytes([len(entry)]) + entry + b"\x70\x01"
    graph = b"\x2a" + bytes([len(tensor)]) + tensor
    (folder / "model.onnx").write_bytes(b"\x3a" + bytes([len(graph)]) + graph + content)


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/passwd", "sub/../../weights.bin"])
def test_outside_data_that_leaves_the_folder_is_refused(broken: Path, location: str) -> None:
    want_outside_data(broken, location)
    with pytest.raises(BundleError, match="a path that leaves the bundle is refused"):
        TextClassifier.pretrained(broken)


def test_outside_data_behind_a_link_that_leaves_the_folder_is_refused(broken: Path) -> None:
    want_outside_data(broken, "weights.bin")
    (broken / "weights.bin").symlink_to("/etc/passwd")
    with pytest.raises(BundleError, match="a link that leaves the bundle is refused"):
        TextClassifier.pretrained(broken)


def test_outside_data_behind_the_links_of_a_hub_snapshot_is_read(broken: Path, tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "hub" / "blobs", tmp_path / "hub" / "snapshots" / "main"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for file in make_large(broken, tmp_path / "large", size=1 << 20).iterdir():
        (snapshot / file.name).symlink_to(file.rename(blobs / f"hash of {file.name}"))
    answers = [
        LocalPipeline([DocumentAssembler(), TextClassifier.pretrained(folder)]).annotate("play music")
        for folder in (broken, snapshot)
    ]
    assert answers[0] == answers[1]


def test_models_of_another_task_are_refused(bundle: Find) -> None:
    with pytest.raises(
        BundleError, match=r"of shape .* but \(batch, labels\) is wanted. Was it exported for another task"
    ):
        TextClassifier.pretrained(bundle("bert-token-classification"))
    with pytest.raises(BundleError, match=r"but \(batch, tokens, labels\) is wanted"):
        TokenClassifier.pretrained(bundle("bert-text-classification"))


def test_length_beyond_the_positions_is_refused(bundle: Find) -> None:
    with pytest.raises(ParamError, match="maxLength=4000 is more than the"):
        classify(bundle("bert-text-classification"), ["a"], maxLength=4000)


def test_replaced_model_is_noticed(spark: SparkSession, broken: Path, bundle: Find) -> None:
    stages = [DocumentAssembler(), TextClassifier.pretrained(broken)]
    (broken / "config.json").write_text((broken / "config.json").read_text().replace("play_music", "other_label"))
    with pytest.raises(DeliveryError, match="holds other files than when the stage was made"):
        LocalPipeline(stages).annotate("play music")
    with pytest.raises(DeliveryError, match="sent or saved now would be another model"):
        stages[1].save(str(broken.parent / "saved"))
    assert not (broken.parent / "saved").exists()


def test_named_file_is_the_one_that_runs(broken: Path) -> None:
    (broken / "model.onnx").rename(broken / "model_a.onnx")
    (broken / "model_b.onnx").write_bytes(b"")
    with pytest.raises(BundleError, match=r"has no model\.onnx"):
        TextClassifier.pretrained(broken)
    named = TextClassifier.pretrained(broken, file="model_a.onnx")
    assert LocalPipeline([DocumentAssembler(), named]).annotate("play music")["category"]
    assert named.getBundle().files.count("model_b.onnx") == 0
    with pytest.raises(BundleError, match=r"has no model_c\.onnx. ONNX files there: 'model_a\.onnx', 'model_b\.onnx'"):
        TextClassifier.pretrained(broken, file="model_c.onnx")


def test_null_fields_in_configs_mean_their_absence(broken: Path, bundle: Find) -> None:
    path = broken / "tokenizer_config.json"
    nulls = dict.fromkeys(
        [
            "truncation_side",
            "padding_side",
            "pad_token_type_id",
            "added_tokens_decoder",
            "add_prefix_space",
            "unk_token",
        ]
    )
    path.write_text(json.dumps(json.loads(path.read_text()) | nulls))
    assert classify(str(broken), ["play music"]) == classify(bundle("bert-text-classification"), ["play music"])


def test_no_room_for_text_is_refused(bundle: Find) -> None:
    with pytest.raises(ParamError, match="leaves no room for text"):
        classify(bundle("bert-text-classification"), ["a"], maxLength=2)


def test_annotator_without_a_model_says_how_to_get_one() -> None:
    with pytest.raises(ParamError, match=r"TextClassifier\.pretrained"):
        LocalPipeline([DocumentAssembler(), TextClassifier()])


def test_unknown_names_are_refused_with_a_hint(bundle: Find) -> None:
    with pytest.raises(ParamError, match=r"there is no param 'topk'\. Did you mean 'topK'"):
        TextClassifier.pretrained(bundle("bert-text-classification"), topk=3)
    with pytest.raises(BundleError, match="Did you mean 'intents-clinc150'"):
        TextClassifier.pretrained("intents-clinc15")
