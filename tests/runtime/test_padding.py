"""Padding never changes an answer: graphs that do unlike things with it, alone and in company."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparktasks import DocumentAssembler, LocalPipeline, TextClassifier
from sparktasks.runtime.bundle import open_bundle
from sparktasks.runtime.padding import Padding
from sparktasks.runtime.text_model import TextModel
from sparktasks.runtime.tokens import Lengths
from tests.graphs import (
    AT_THE_END_TOKEN,
    END,
    LAST_COLUMN,
    LAST_TOKEN,
    MEAN_OF_MASKED,
    PAD,
    SUM_OF_ALL,
    WORDS,
    Nodes,
    write_bundle,
)

TEXTS = [" ".join(f"w{(7 * start + step * step) % 37}" for step in range(1 + start % 9)) for start in range(40)]
RIGHT, LEFT = {"padding_side": "right"}, {"padding_side": "left"}
W1 = WORDS.index("w1")


def scores(folder: Path, texts: list[str], **params: Any) -> list[list[tuple[str, float]]]:
    stage = TextClassifier.pretrained(folder, topK=None, **params)
    rows = LocalPipeline([DocumentAssembler(), stage]).fullAnnotate(texts)
    return [[(item.result, round(item.score, 5)) for item in row["category"]] for row in rows]


def padding_of(folder: Path) -> Padding:
    return TextModel(open_bundle(folder), Lengths(), 512, "cpu").padding("logits")


@pytest.mark.parametrize(
    ("nodes", "config", "tokenizer_config", "expected"),
    [
        pytest.param(MEAN_OF_MASKED, {"pad_token_id": PAD}, RIGHT, Padding(PAD), id="a mask is heeded"),
        pytest.param(MEAN_OF_MASKED, {}, LEFT, Padding(0, left=True), id="on either side"),
        pytest.param(SUM_OF_ALL, {"pad_token_id": PAD}, RIGHT, Padding(PAD, equal_only=True), id="padding leaks"),
        pytest.param(LAST_COLUMN, {}, RIGHT, Padding(0, left=True), id="the last column is read"),
        pytest.param(
            LAST_TOKEN, {"pad_token_id": PAD}, RIGHT, Padding(PAD), id="config.json has the graph's pad token"
        ),
        pytest.param(LAST_TOKEN, {"pad_token_id": W1}, {"pad_token": "[PAD]"}, Padding(PAD), id="the tokenizer has it"),
        pytest.param(
            LAST_TOKEN, {"pad_token_id": PAD}, {"pad_token": "w1"}, Padding(PAD), id="the tokenizer has another"
        ),
        pytest.param(LAST_TOKEN, {"pad_token_id": PAD}, LEFT, Padding(PAD), id="the tokenizer's side is the wrong one"),
        pytest.param(LAST_TOKEN, {"pad_token_id": -1}, RIGHT, Padding(PAD), id="a pad token that is none"),
    ],
)
def test_texts_get_the_same_scores_in_company(
    nodes: Nodes, config: Mapping[str, Any], tokenizer_config: Mapping[str, Any], expected: Padding, tmp_path: Path
) -> None:
    folder = write_bundle(tmp_path / "model", nodes, config=config, tokenizer_config=tokenizer_config)
    assert padding_of(folder) == expected
    alone = [scores(folder, [text])[0] for text in TEXTS]
    assert scores(folder, TEXTS) == alone
    assert len({row[0][0] for row in alone}) == 4, "texts that all get one label could show no mistake"


def test_a_leaking_graph_is_named_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_bundle(tmp_path / "model", SUM_OF_ALL, config={"note": "not seen by this process before"})
    with caplog.at_level(logging.WARNING, logger="sparktasks"):
        scores(folder, TEXTS[:3])
    assert any("only texts of equal length run together" in record.message for record in caplog.records)


def test_encoder_decoders_with_end_tokens_in_texts(tmp_path: Path) -> None:
    config = {"is_encoder_decoder": True, "eos_token_id": END, "pad_token_id": PAD}
    folder = write_bundle(tmp_path / "model", AT_THE_END_TOKEN, config=config)
    texts = [f"{text} [EOS]" for text in TEXTS] + ["w3 [EOS] w4 [EOS]", "[EOS] [EOS] [EOS]", "w3 [EOS] w9"]
    assert scores(folder, texts) == [scores(folder, [text])[0] for text in texts]


@pytest.mark.parametrize("shape", [(1, 16), (4, 16), (4, "tokens"), ("texts", 16)])
def test_fixed_axes_are_filled_up(shape: tuple[int | str, int | str], tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "fixed", MEAN_OF_MASKED, shape=shape)
    free = write_bundle(tmp_path / "free", MEAN_OF_MASKED)
    assert scores(folder, TEXTS) == scores(free, TEXTS)
    long = " ".join(WORDS[3:])
    found = LocalPipeline([DocumentAssembler(), TextClassifier.pretrained(folder)]).fullAnnotate(long)["category"][0]
    assert (found.metadata.get("truncated") == "true") == (shape[1] == 16)


def test_what_was_found_for_a_large_model_is_kept_on_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPARKTASKS_SHARE_BYTES", "0")
    monkeypatch.setenv("SPARKTASKS_CACHE", str(tmp_path / "store"))
    folder = write_bundle(tmp_path / "model", LAST_COLUMN)
    assert padding_of(folder) == Padding(0, left=True)
    (kept,) = (tmp_path / "store").glob("*/padding/*/content/padding.json")
    assert json.loads(kept.read_text()) == {"pad_id": 0, "left": True, "equal_only": False}


def test_windows_of_a_leaking_graph_are_those_of_each_alone(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "model", SUM_OF_ALL)
    words = [f"w{number}" for number in range(11)]
    (found,) = scores(folder, [" ".join(words)], longText="window", maxLength=4, functionToApply="none")
    parts = [scores(folder, [" ".join(words[start : start + 4])], functionToApply="none")[0] for start in (0, 4, 8)]
    expected = {
        label: np.average([dict(part)[label] for part in parts], weights=[4, 4, 3]) for label in ("LABEL_0", "LABEL_3")
    }
    assert {label: dict(found)[label] for label in expected} == pytest.approx(expected, abs=1e-4)
