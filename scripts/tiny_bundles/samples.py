"""What the bundles are made from and checked with: the committed texts, and prompts cut from texts."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TEXTS = ROOT / "tests" / "data" / "texts.json"
CORPUS = ROOT / "tests" / "data" / "corpus.txt"
PROMPTS = 120

BUDGETS = (5, 12, 22, 32, 45)
COST = 0.5  # of an ASCII character; other characters cost the bytes that they have
SHARED = "Please write a short answer to the question of our guest about"
DUPLICATES = 4

Pair = tuple[str, str]


@cache
def sample_texts() -> dict[str, str]:
    """Return the committed texts by id."""
    return json.loads(TEXTS.read_text(encoding="utf-8"))["texts"]


@cache
def sample_pairs() -> dict[str, Pair]:
    """Return the committed text pairs by id."""
    pairs = json.loads(TEXTS.read_text(encoding="utf-8"))["pairs"]
    return {key: (first, second) for key, (first, second) in pairs.items()}


@cache
def corpus() -> list[str]:
    """Return the lines of the committed corpus."""
    return CORPUS.read_text(encoding="utf-8").splitlines()


@cache
def sample_prompts() -> list[str]:
    """Return prompts from the committed corpus."""
    return prompts_from(corpus(), PROMPTS)


def prompts_from(texts: Sequence[str], count: int) -> list[str]:
    """Return `count` prompts of 1 to about 60 tokens: words, cut texts, prompts with one prefix, and duplicates."""
    rng = random.Random(23)
    filled = [text.strip() for text in texts if has_words(text)]
    rng.shuffle(filled)
    distinct = list(dict.fromkeys(filter(has_words, variants(filled))))[: count - DUPLICATES]
    if len(distinct) < count - DUPLICATES:
        raise ValueError(f"{len(texts)} texts give {len(distinct)} different prompts, fewer than {count - DUPLICATES}")
    prompts = [*distinct, *distinct[:DUPLICATES]]
    rng.shuffle(prompts)
    return prompts


def has_words(text: str) -> bool:
    """Tell whether a text has a letter or a digit."""
    return any(char.isalnum() for char in text)


def variants(texts: Sequence[str]) -> Iterator[str]:
    """Yield single words, texts cut to one of the budgets, and texts behind a shared prefix, in turn."""
    for number, text in enumerate(texts):
        if number % 10 == 0:
            yield text.split()[0][:20]
        elif number % 10 == 1:
            yield f"{SHARED} {cut(text, 20)}"
        else:
            yield cut(text, BUDGETS[number % len(BUDGETS)])


def cut(text: str, budget: float) -> str:
    """Return the beginning of a text that costs no more than the budget."""
    spent = 0.0
    for place, char in enumerate(text):
        spent += COST if char.isascii() else len(char.encode("utf-8"))
        if spent > budget:
            return text[:place].strip()
    return text
