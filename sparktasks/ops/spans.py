"""Entities from token probabilities, as transformers' token-classification pipeline computes them (version 4.57.6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

STRATEGIES = ("none", "simple", "first", "average", "max")


class Entity(NamedTuple):
    """A labelled span of a text: ``text[start:end]``."""

    label: str
    start: int
    end: int
    score: float


class Tokens(NamedTuple):
    """The text tokens of one window: probabilities ``(tokens, labels)``, spans, and which continue the word before."""

    scores: np.ndarray
    spans: Sequence[tuple[int, int]]
    is_subword: Sequence[bool]


def aggregate(tokens: Tokens, labels: Sequence[str], strategy: str) -> list[Entity]:
    """Turn the tokens of one window into entities by one of `STRATEGIES`; every label is kept, ``O`` too."""
    if strategy == "none":
        return label_tokens(tokens, labels)
    return group(label_tokens(tokens, labels) if strategy == "simple" else label_words(tokens, labels, strategy))


def label_tokens(tokens: Tokens, labels: Sequence[str]) -> list[Entity]:
    """Give each token its most probable label."""
    best = tokens.scores.argmax(axis=-1)
    found = tokens.scores[np.arange(len(best)), best].tolist()
    return [
        Entity(labels[index], *span, score)
        for index, span, score in zip(best.tolist(), tokens.spans, found, strict=True)
    ]


def label_words(tokens: Tokens, labels: Sequence[str], strategy: str) -> list[Entity]:
    """Fold subwords into words and give each word one label: of its first token, its surest token, or its mean."""
    found = []
    for start, end in _words(tokens.is_subword):
        scores = _WORD_SCORES[strategy](tokens.scores[start:end])
        best = int(scores.argmax())
        found.append(Entity(labels[best], tokens.spans[start][0], tokens.spans[end - 1][1], float(scores[best])))
    return found


_WORD_SCORES = {
    "first": lambda scores: scores[0],
    "average": lambda scores: np.nanmean(scores, axis=0),
    "max": lambda scores: scores[scores.max(axis=-1).argmax()],
}


def _words(is_subword: Sequence[bool]) -> list[tuple[int, int]]:
    starts = [index for index, continues in enumerate(is_subword) if index == 0 or not continues]
    return list(zip(starts, [*starts[1:], len(is_subword)], strict=True)) if starts else []


def group(entities: Sequence[Entity]) -> list[Entity]:
    """Join neighbours of one type; ``B-`` always begins a new group, and a label without a prefix counts as ``I-``."""
    groups: list[list[Entity]] = []
    for entity in entities:
        prefix, kind = _split(entity.label)
        if groups and prefix != "B" and kind == _split(groups[-1][-1].label)[1]:
            groups[-1].append(entity)
        else:
            groups.append([entity])
    return [_joined(members) for members in groups]


def _split(label: str) -> tuple[str, str]:
    return (label[0], label[2:]) if label.startswith(("B-", "I-")) else ("I", label)


def _joined(members: Sequence[Entity]) -> Entity:
    label = members[0].label.split("-", 1)[-1]
    return Entity(
        label,
        members[0].start,
        members[-1].end,
        float(np.nanmean(np.array([member.score for member in members], np.float32))),
    )


def resolve_overlaps(entities: Sequence[Entity]) -> list[Entity]:
    """Where entities of neighbouring windows overlap, keep the longer one, and the surer one of equal length."""
    ordered = sorted(entities, key=lambda entity: entity.start)
    kept: list[Entity] = []
    for entity in ordered:
        if kept and kept[-1].start <= entity.start < kept[-1].end:
            if (entity.end - entity.start, entity.score) > (kept[-1].end - kept[-1].start, kept[-1].score):
                kept[-1] = entity
        else:
            kept.append(entity)
    return kept


_SAME_TAG = {"L": "E", "U": "S", "M": "I"}
_STARTS_AFTER = {"E": "EI", "S": "EI", "O": "EI"}


def chunks(labels: Sequence[str]) -> list[tuple[str, int, int]]:
    """Decode per-token labels (IOB1, IOB2, IOE1, IOE2, BIOES, BILOU) to (type, first token, last token).

    The rules are those of the CoNLL-2000 evaluation script, which read every scheme and forgive broken sequences.

    >>> chunks(["B-PER", "I-PER", "O", "S-LOC", "I-ORG", "E-ORG"])
    [('PER', 0, 1), ('LOC', 3, 3), ('ORG', 4, 5)]
    """
    found: list[tuple[str, int, int]] = []
    tag, kind, start = "O", "", -1
    for index, label in enumerate([*labels, "O"]):
        next_tag, next_kind = _tag(label)
        if start >= 0 and _ends(tag, next_tag, kind, next_kind):
            found.append((kind, start, index - 1))
            start = -1
        if next_tag != "O" and (next_tag in "BS" or kind != next_kind or next_tag in _STARTS_AFTER.get(tag, "")):
            start = index
        tag, kind = next_tag, next_kind
    return found


def _tag(label: str) -> tuple[str, str]:
    if label == "O":
        return "O", ""
    prefix, dash, kind = label.partition("-")
    return (_SAME_TAG.get(prefix, prefix), kind) if dash and prefix in set("BIESLUM") else ("I", label)


def _ends(tag: str, next_tag: str, kind: str, next_kind: str) -> bool:
    return tag in "ES" or next_tag in "BSO" or kind != next_kind
