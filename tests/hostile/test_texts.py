"""Texts of 20 MB where a model reads a few hundred tokens: cut before they are tokenized."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.hostile.limited import attempt

BUNDLES = Path(__file__).parents[1] / "bundles"
BEFORE = """
import resource
from sparktasks import DocumentAssembler, LocalPipeline
from sparktasks import Summarizer, TextClassifier, TextEmbedder, TextGenerator, TokenClassifier
LONG = "Lorem ipsum dolor sit amet, consectetur. " * 500_000
def run(stage, column):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = LocalPipeline([DocumentAssembler(), stage]).fullAnnotate([LONG, "play music"])
    assert all(row[column] and row[column][0].result is not None for row in found), found[0][column][:1]
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < 700, f"{grown:.0f} MiB"
"""
STAGES = {
    "classifier": 'run(TextClassifier.pretrained(sys.argv[1] + "/bert-text-classification"), "category")',
    "token classifier": (
        'run(TokenClassifier.pretrained(sys.argv[1] + "/bert-token-classification", longText="truncate"), "entities")'
    ),
    "embedder": 'run(TextEmbedder.pretrained(sys.argv[1] + "/bert-embedding-mean"), "embeddings")',
    "generator": 'run(TextGenerator.pretrained(maxNewTokens=2), "generation")',
    "summarizer": 'run(Summarizer.pretrained(sys.argv[1] + "/t5-text2text-generation", maxNewTokens=2), "summary")',
}


@pytest.mark.parametrize("code", STAGES.values(), ids=STAGES)
def test_a_text_of_20_megabytes_takes_no_time_and_no_memory(code: str) -> None:
    seconds, answer = attempt(f"{BEFORE}\nattempt(lambda: {code})", BUNDLES)
    assert answer == "accepted"
    assert seconds < 12


UNLIMITED = """
from sparktasks import DocumentAssembler, LocalPipeline
from sparktasks import Summarizer, TextClassifier
def run(stage, column):
    long = "play some music " * 12_000
    first, second = LocalPipeline([DocumentAssembler(), stage]).fullAnnotate([long, "play music"])
    assert first[column][0].result is None, first[column][0].result[:80]
    assert "Set maxLength" in first[column][0].error, first[column][0].error
    assert second[column][0].result is not None, second[column][0].error
"""
WITHOUT_LIMIT = {
    "classifier": 'run(TextClassifier.pretrained(sys.argv[1] + "/xlnet-text-classification"), "category")',
    "summarizer": 'run(Summarizer.pretrained(sys.argv[1] + "/t5-text2text-generation", maxNewTokens=2), "summary")',
}


@pytest.mark.parametrize("code", WITHOUT_LIMIT.values(), ids=WITHOUT_LIMIT)
def test_a_text_that_nothing_limits_costs_its_row_and_not_the_process(code: str, tmp_path: Path) -> None:
    for name in ("xlnet-text-classification", "t5-text2text-generation"):
        shutil.copytree(BUNDLES / name, tmp_path / name)
        path = tmp_path / name / "tokenizer_config.json"
        config = json.loads(path.read_text(encoding="utf-8"))
        config.pop("model_max_length", None)
        path.write_text(json.dumps(config), encoding="utf-8")
    _, answer = attempt(f"{UNLIMITED}\nattempt(lambda: {code})", tmp_path)
    assert answer == "accepted"
