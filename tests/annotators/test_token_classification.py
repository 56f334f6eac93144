"""TokenClassifier's modes: windows, given tokens, merged entities."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from sparktasks import DocumentAssembler, EntityMerger, LocalPipeline, RegexTokenizer, TokenClassifier, WordsAssembler

Find = Callable[[str], str]
NAMES = ["bert-token-classification", "roberta-token-classification", "xlm-roberta-token-classification"]
LONG = " ".join(f"word{index} Verona" for index in range(200))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("stride", [None, 0, 1, 16])
def test_windows_label_every_token_once(bundle: Find, name: str, stride: int | None) -> None:
    stage = TokenClassifier.pretrained(bundle(name), outputCol="out", ignoreLabels=[], stride=stride)
    found = LocalPipeline([DocumentAssembler(), stage]).fullAnnotate(LONG)["out"]
    assert [a.begin for a in found] == sorted(a.begin for a in found)
    covered = {place for a in found for place in range(a.begin, a.end + 1)}
    assert covered >= {place for place, character in enumerate(LONG) if character != " "}
    tokenizer = Tokenizer.from_file(f"{bundle(name)}/tokenizer.json")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    assert [(a.begin, a.end + 1) for a in found] == tokenizer.encode(LONG, add_special_tokens=False).offsets


def test_truncation_leaves_the_end_unlabelled_only_when_asked(bundle: Find) -> None:
    stages = [
        TokenClassifier.pretrained(
            bundle(NAMES[0]), outputCol=mode, aggregation="first", ignoreLabels=[], longText=mode
        )
        for mode in ("window", "truncate")
    ]
    found = LocalPipeline([DocumentAssembler(), *stages]).fullAnnotate(LONG)
    assert found["window"][-1].end == len(LONG) - 1
    assert found["truncate"][-1].end < len(LONG) // 2


@pytest.mark.parametrize("name", NAMES)
def test_given_tokens_get_one_label_each(bundle: Find, name: str) -> None:
    stage = TokenClassifier.pretrained(bundle(name), inputCols=["document", "token"])
    text = LONG + " naïve 日本語 😀 don't " + "x" * 200
    found = LocalPipeline([DocumentAssembler(), RegexTokenizer(), stage]).fullAnnotate(text)
    assert [(a.begin, a.end, a.metadata["word"]) for a in found["entities"]] == [
        (t.begin, t.end, t.result) for t in found["token"]
    ]
    assert all(a.result is not None and 0 < (a.score or 0) <= 1 for a in found["entities"])


def test_token_and_document_columns_are_told_apart_by_type(bundle: Find) -> None:
    outputs = []
    for columns in (["document", "token"], ["token", "document"]):
        stage = TokenClassifier.pretrained(bundle(NAMES[0]), inputCols=columns)
        outputs.append(LocalPipeline([DocumentAssembler(), RegexTokenizer(), stage]))
    assert TokenClassifier.pretrained(bundle(NAMES[0]), inputCols=["document", "token"]).writes == "named_entity"


def test_token_that_the_tokenizer_drops_is_an_error_not_a_gap(bundle: Find) -> None:
    stage = TokenClassifier.pretrained(bundle(NAMES[0]), inputCols=["document", "token"])
    found = LocalPipeline([WordsAssembler(), stage]).fullAnnotate({"words": ["Romeo", "\u200d", "Juliet"]})["entities"]
    assert [a.error is None for a in found] == [True, False, True]
    assert "makes nothing of the token" in (found[1].error or "")


@pytest.mark.parametrize("side", ["left", "right"])
def test_given_tokens_are_read_in_order_whatever_the_truncation_side(bundle: Find, tmp_path: Path, side: str) -> None:
    folder = shutil.copytree(bundle(NAMES[0]), tmp_path / "bundle")
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"truncation_side": side}))
    stage = TokenClassifier.pretrained(folder, inputCols=["document", "token"], maxLength=24, stride=4)
    found = LocalPipeline([DocumentAssembler(), RegexTokenizer(), stage]).fullAnnotate(LONG)
    assert [a.metadata.get("word") for a in found["entities"]] == LONG.split()


def test_unknown_words_stand_alone_wherever_the_unknown_token_is_named(bundle: Find, tmp_path: Path) -> None:
    folder = shutil.copytree(bundle(NAMES[0]), tmp_path / "bundle")
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in config.items() if key != "unk_token"}))
    answers = [
        LocalPipeline(
            [DocumentAssembler(), TokenClassifier.pretrained(each, aggregation="first", ignoreLabels=[])]
        ).annotate("saw 龘 cat 🦄")
        for each in (folder, bundle(NAMES[0]))
    ]
    assert answers[0] == answers[1]


def test_sentences_of_a_row_are_read_apart(bundle: Find) -> None:
    stage = TokenClassifier.pretrained(bundle(NAMES[0]), inputCols=["document", "token"])
    local = LocalPipeline([DocumentAssembler(), RegexTokenizer(), stage])
    both = local.fullAnnotate(["first sentence", "Romeo in Verona"])
    together = local.fullAnnotate([["first sentence", "Romeo in Verona"]])[0]["entities"]
    assert [a.score for a in together] == pytest.approx([a.score for row in both for a in row["entities"]], abs=1e-5)
    assert [a.metadata["sentence"] for a in together] == ["0"] * 2 + ["1"] * 3


def test_merged_entities_are_slices_of_the_document(bundle: Find) -> None:
    tagger = TokenClassifier.pretrained(bundle(NAMES[0]), inputCols=["document", "token"])
    local = LocalPipeline(
        [DocumentAssembler(), RegexTokenizer(), tagger, EntityMerger(inputCols=["document", "entities"])]
    )
    text = "Romeo met Juliet in old Verona, near Mantua and Padua"
    found = local.fullAnnotate(text)
    assert found["chunk"]
    assert all(text[a.begin : a.end + 1] == a.result for a in found["chunk"])
    labelled = [t for t in found["entities"] if t.result != "O"]
    assert sum(len(a.result.split()) for a in found["chunk"]) == len(labelled)
    assert {a.metadata["entity"] for a in found["chunk"]} == {t.result[2:] for t in labelled}
