"""Texts of 20 MB where a model reads a few hundred tokens: cut before they are tokenized."""

from __future__ import annotations

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
