"""Golden answers for the committed bundles, recorded from the oracle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import transformers as hf

from .oracle import EmbeddingOracle, Pair, TokenOracle, text_labels
from .specs import TEXT, TOKEN, Spec

STRATEGIES = ("none", "simple", "first", "average", "max")
STRIDE = 16
DIGITS = 7

Golden = dict[str, dict[str, Any]]


def record(spec: Spec, twin: Path, texts: dict[str, str], pairs: dict[str, Pair]) -> Golden:
    """Return the answers of one bundle: {input kind or strategy: {text id: answer}}."""
    if spec.task == TEXT:
        return text_golden(twin, texts, pairs)
    return token_golden(twin, texts) if spec.task == TOKEN else embedding_golden(twin, spec, texts)


def text_golden(twin: Path, texts: dict[str, str], pairs: dict[str, Pair]) -> Golden:
    """Return all labels with scores, best first, of texts and of text pairs."""
    return {
        "texts": dict(zip(texts, text_labels(twin, texts.values()), strict=True)),
        "pairs": dict(zip(pairs, text_labels(twin, pairs.values()), strict=True)),
    }


def token_golden(twin: Path, texts: dict[str, str]) -> Golden:
    """Return the spans of every strategy, and of one with overlapping windows over long texts."""
    oracle, windows = TokenOracle(twin), TokenOracle(twin, stride=STRIDE)
    spans = {strategy: {key: oracle.spans(text, strategy) for key, text in texts.items()} for strategy in STRATEGIES}
    return {**spans, f"first_stride_{STRIDE}": {key: windows.spans(text, "first") for key, text in texts.items()}}


def embedding_golden(twin: Path, spec: Spec, texts: dict[str, str]) -> Golden:
    """Return the pooled vectors, plain and with each of the bundle's prompts."""
    oracle = EmbeddingOracle(twin, spec)
    prompts = {"texts": "", **{f"prompt_{name}": prompt for name, prompt in spec.prompts.items()}}
    return {
        kind: {key: oracle.vector(prompt + text).tolist() for key, text in texts.items()}
        for kind, prompt in prompts.items()
    }


def write_golden(spec: Spec, golden: Golden, path: Path) -> None:
    """Write one golden file, a line for each text."""
    head = [f'"transformers": {json.dumps(hf.__version__)}', f'"task": {json.dumps(spec.task)}']
    sections = [f"{json.dumps(kind)}: {{\n{lines(answers)}\n}}" for kind, answers in golden.items()]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{\n" + ",\n".join(head + sections) + "\n}\n", encoding="utf-8")


def lines(answers: dict[str, Any]) -> str:
    """Return the JSON lines of one section."""
    return ",\n".join(
        f" {json.dumps(key)}: {json.dumps(rounded(answer), separators=(',', ':'))}" for key, answer in answers.items()
    )


def rounded(value: Any) -> Any:
    """Return the value with every float cut to `DIGITS` digits after the point."""
    if isinstance(value, float):
        return round(value, DIGITS)
    return [rounded(item) for item in value] if isinstance(value, (list, tuple)) else value
