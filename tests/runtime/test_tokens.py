"""Long texts are cut before they are tokenized, and nothing of what is kept changes."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from sparktasks.runtime.bundle import open_bundle
from sparktasks.runtime.tokens import Lengths, TextTokenizer

ROOT = Path(__file__).parents[2]
FOLDERS = [*sorted((ROOT / "tests" / "bundles").iterdir()), *sorted((ROOT / "sparktasks" / "starter").glob("[a-z]*"))]
WORDS = (ROOT / "tests" / "data" / "corpus.txt").read_text(encoding="utf-8").split()
ODD = ["東京都は", "😀", "a" * 300, "\n\n", "   ", "", "e\u0301", "</s>", "[SEP]"]


def long_texts() -> list[str]:
    """Return texts with and without spaces, of up to 60,000 characters."""
    rng = random.Random(7)
    texts = []
    for number in range(12):
        words = [
            rng.choice(ODD) if rng.random() < 0.1 else rng.choice(WORDS) for _ in range(rng.choice([200, 1500, 8000]))
        ]
        texts.append(("" if number % 4 == 0 else " ").join(words))
    return texts


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_cut_text_keeps_the_tokens_of_the_whole_one(folder: Path, side: str) -> None:
    bundle, texts = open_bundle(folder), long_texts()
    for most in (16, 60):
        cut = TextTokenizer(bundle, Lengths(most, side=side)).encode(texts, offsets=False)
        whole = TextTokenizer(bundle, Lengths(most, side=side, windows=True)).encode(texts, offsets=False)
        assert [encoding.ids for encoding in cut] == [encoding.ids for encoding in whole]
        assert all(encoding.overflowing for encoding in cut)


def test_a_text_whose_beginning_makes_few_tokens_is_read_on() -> None:
    bundle = open_bundle(ROOT / "tests" / "bundles" / "bert-text-classification")
    text = " " * 5000 + "play music"
    assert (
        TextTokenizer(bundle, Lengths(16)).encode([text])[0].ids
        == TextTokenizer(bundle, Lengths(16)).encode(["play music"])[0].ids
    )
