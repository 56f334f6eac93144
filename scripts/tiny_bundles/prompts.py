"""Prompts for text generation, cut from other texts."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

BUDGETS = (5, 12, 22, 32, 45)
COST = 0.5  # of an ASCII character; other characters cost the bytes that they have
SHARED = "Please write a short answer to the question of our guest about"
DUPLICATES = 4


def prompts_from(texts: Sequence[str], count: int) -> list[str]:
    """Return `count` prompts of 1 to about 60 tokens: words, cut texts, prompts with one beginning, and some
    repeated."""
    draw = random.Random(23)
    filled = [text.strip() for text in texts if any(char.isalnum() for char in text)]
    draw.shuffle(filled)
    made = dict.fromkeys(prompt for prompt in variants(filled) if any(char.isalnum() for char in prompt))
    unique = list(made)[: count - DUPLICATES]
    if len(unique) < count - DUPLICATES:
        raise ValueError(f"{len(texts)} texts give {len(unique)} different prompts, fewer than {count - DUPLICATES}")
    prompts = [*unique, *unique[:DUPLICATES]]
    draw.shuffle(prompts)
    return prompts


def variants(texts: Sequence[str]) -> Iterator[str]:
    """Yield single words, texts cut to one of the budgets, and texts behind a shared beginning, in turn."""
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
